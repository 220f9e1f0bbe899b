/* Matrix times vector. weights: [outputs][inputs] */
static void dense(int32_t inputs, int32_t outputs, const struct weights *p, const uint8_t *x, uint8_t *y) {
    const int8_t *tap = p->values;
    for (int32_t out = 0; out < outputs; out++) {
        int32_t sum = p->bias[out];
        for (int32_t in = 0; in < inputs; in++) {
            sum += ((int32_t)x[in] - p->in_zero) * *tap++;
        }
        y[out] = requantized((float)sum * p->factors[out], p->out_zero, p->out_low);
    }
}
