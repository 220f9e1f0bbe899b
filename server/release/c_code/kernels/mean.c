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
