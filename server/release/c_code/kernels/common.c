/* Activations are uint8 with one scale and zero point per tensor, channels last; weights int8 with a scale per output
 * channel and zero point 0; sums int32. The next layer's value is the sum times one float factor, rounded half to even:
 * the arithmetic of ONNX Runtime, so that both give the same bits. */

static int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

static int32_t rounded(float value) { /* half to even; |value| is far below 2^23 */
    const int32_t whole = (int32_t)value;
    const float rest = value - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)) {
        return whole + 1;
    }
    if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0)) {
        return whole - 1;
    }
    return whole;
}

static uint8_t requantized(float value, int32_t zero, int32_t low) {
    const float least = (float)(low - zero), most = (float)(255 - zero);
    const float inside = value < least ? least : value > most ? most : value;
    return (uint8_t)clamp(rounded(inside) + zero, low, 255);
}
