"""The C code that a student's layers call, by kind of layer; `common` is needed by all.

As text in a module: an app bundle of Flower's carries no `.c` files.
"""

KERNELS = {
    "common": """\
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
""",
    "conv": """\
/* Convolution. weights: [out_channels][kernel_height][kernel_width][in_channels] */
static void conv(const struct window *w, const struct weights *p, const uint8_t *x, uint8_t *y) {
    for (int32_t row = 0; row < w->out_height; row++) {
        for (int32_t column = 0; column < w->out_width; column++) {
            const int8_t *tap = p->values;
            for (int32_t out = 0; out < w->out_channels; out++) {
                int32_t sum = p->bias[out];
                for (int32_t i = 0; i < w->kernel_height; i++) {
                    const int32_t from_row = row * w->stride_height + i - w->pad_top;
                    for (int32_t j = 0; j < w->kernel_width; j++, tap += w->in_channels) {
                        const int32_t from_column = column * w->stride_width + j - w->pad_left;
                        if (from_row < 0 || from_row >= w->in_height || from_column < 0 || from_column >= w->in_width) {
                            continue; /* padding has the value zero */
                        }
                        const uint8_t *pixel = x + (from_row * w->in_width + from_column) * w->in_channels;
                        for (int32_t in = 0; in < w->in_channels; in++) {
                            sum += ((int32_t)pixel[in] - p->in_zero) * tap[in];
                        }
                    }
                }
                *y++ = requantized((float)sum * p->factors[out], p->out_zero, p->out_low);
            }
        }
    }
}
""",
    "depthwise": """\
/* Depthwise convolution. weights: [kernel_height][kernel_width][channels] */
static void depthwise(const struct window *w, const struct weights *p, const uint8_t *x, uint8_t *y) {
    for (int32_t row = 0; row < w->out_height; row++) {
        for (int32_t column = 0; column < w->out_width; column++) {
            for (int32_t out = 0; out < w->out_channels; out++) {
                const int8_t *tap = p->values + out;
                int32_t sum = p->bias[out];
                for (int32_t i = 0; i < w->kernel_height; i++) {
                    const int32_t from_row = row * w->stride_height + i - w->pad_top;
                    for (int32_t j = 0; j < w->kernel_width; j++, tap += w->out_channels) {
                        const int32_t from_column = column * w->stride_width + j - w->pad_left;
                        if (from_row < 0 || from_row >= w->in_height || from_column < 0 || from_column >= w->in_width) {
                            continue; /* padding has the value zero */
                        }
                        const uint8_t *pixel = x + (from_row * w->in_width + from_column) * w->in_channels;
                        sum += ((int32_t)pixel[out] - p->in_zero) * *tap;
                    }
                }
                *y++ = requantized((float)sum * p->factors[out], p->out_zero, p->out_low);
            }
        }
    }
}
""",
    "max_pool": """\
/* Largest value of each window; the scale stays. */
static void max_pool(const struct window *w, const uint8_t *x, uint8_t *y) {
    for (int32_t row = 0; row < w->out_height; row++) {
        for (int32_t column = 0; column < w->out_width; column++) {
            for (int32_t out = 0; out < w->out_channels; out++) {
                uint8_t most = 0;
                for (int32_t i = 0; i < w->kernel_height; i++) {
                    const int32_t from_row = row * w->stride_height + i - w->pad_top;
                    for (int32_t j = 0; j < w->kernel_width; j++) {
                        const int32_t from_column = column * w->stride_width + j - w->pad_left;
                        if (from_row < 0 || from_row >= w->in_height || from_column < 0 || from_column >= w->in_width) {
                            continue;
                        }
                        const uint8_t found = x[(from_row * w->in_width + from_column) * w->in_channels + out];
                        most = found > most ? found : most;
                    }
                }
                *y++ = most;
            }
        }
    }
}
""",
    "mean": """\
/* Mean over the whole image of each channel. */
static void mean(const struct average *a, const uint8_t *x, uint8_t *y) {
    for (int32_t out = 0; out < a->channels; out++) {
        int32_t sum = 0;
        for (int32_t place = 0; place < a->places; place++) {
            sum += (int32_t)x[place * a->channels + out] - a->in_zero;
        }
        const float value = a->in_scale * (float)sum / (float)a->places;
        y[out] = requantized(value / a->out_scale, a->out_zero, 0);
    }
}
""",
    "dense": """\
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
""",
}
