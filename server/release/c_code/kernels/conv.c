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
