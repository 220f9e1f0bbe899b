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
