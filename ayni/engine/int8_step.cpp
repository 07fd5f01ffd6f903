// One decoding step of the whole model over int8 weights: R rows give a token each and get the logits of the next.
//
//     for each layer:  x += Wo attention(norm(x));  x += W2 (silu(W1 norm(x)) * W3 norm(x));      logits = W norm(x)
//
// A step is hundreds of small products, and each of them is over before a call of its own, or threads started for it, would
// have paid: so all of it is one parallel region. Numbers between products are fp32; keys and values are bf16, as the cache
// has them. A row's sums run in an order that nothing but its own length decides, whatever the other rows are and however
// many threads there are. engine/int8_step.py compiles and calls this.
//
// R rows, D width, F feed-forward width, H query heads, K key/value heads, d width of a head, V vocabulary.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using Index = std::int64_t;
using BFloat16 = std::uint16_t;

extern "C" {

struct Matrix {  // W_oi = scale_o whole_oi
    const std::int8_t *whole;
    const float *scale;
    Index out, in;
};

struct Layer {
    const float *attention_norm;
    Matrix wq, wk, wv, wo;
    const float *ffn_norm;
    Matrix w1, w2, w3;
};

struct Model {
    Index layers, D, F, H, K, d, V;
    float eps;
    const Layer *layer;
    const float *norm;
    Matrix output;
};

struct Cache {  // [layers, slots, K, positions, d]; row r is in slot r. Strides in numbers.
    BFloat16 *k, *v;
    Index layer_stride, slot_stride, head_stride;
};

}  // extern "C"

namespace {

constexpr Index BLOCK = 4;     // outputs that share a reading of x
constexpr Index AHEAD = 9216;  // bytes: how far before their use weights are asked for. Without it a step takes twice as long

Index blocks(const Matrix &W) { return (W.out + BLOCK - 1) / BLOCK; }

float dot(const float *x, const float *y, Index n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

// y_o = W_o x, for the outputs of block b; how many these are.
Index product(const Matrix &W, Index b, const float *x, float *y) {
    const Index o = b * BLOCK, left = W.out - o;
    const std::int8_t *w0 = W.whole + o * W.in;
    if (left < BLOCK) {
        for (Index j = 0; j < left; j++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (Index i = 0; i < W.in; i++) sum += x[i] * w0[j * W.in + i];
            y[j] = W.scale[o + j] * sum;
        }
        return left;
    }
    const std::int8_t *w1 = w0 + W.in, *w2 = w1 + W.in, *w3 = w2 + W.in;
    for (Index i = 0; i < BLOCK * W.in; i += 64) __builtin_prefetch(w0 + AHEAD + i);
    float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
    for (Index i = 0; i < W.in; i++) {
        sum0 += x[i] * w0[i];
        sum1 += x[i] * w1[i];
        sum2 += x[i] * w2[i];
        sum3 += x[i] * w3[i];
    }
    const float sum[BLOCK] = {sum0, sum1, sum2, sum3};
    for (Index j = 0; j < BLOCK; j++) y[j] = W.scale[o + j] * sum[j];
    return BLOCK;
}

void rms_norm(const float *x, const float *weight, float eps, Index D, float *y) {
    const float scale = 1 / std::sqrt(dot(x, x, D) / D + eps);
    for (Index i = 0; i < D; i++) y[i] = x[i] * scale * weight[i];
}

float widened(BFloat16 value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

BFloat16 narrowed(float value) {  // the nearest; of two, the even one
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<BFloat16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// RoPE: pairs (i, i + d/2) turned by the position's angle. The first half of sin is negated, as in model/transformer.py.
void rotate(const float *x, const float *cos, const float *sin, Index d, float *y) {
    for (Index i = 0; i < d / 2; i++) {
        y[i] = x[i] * cos[i] + x[i + d / 2] * sin[i];
        y[i + d / 2] = x[i + d / 2] * cos[i + d / 2] + x[i] * sin[i + d / 2];
    }
}

// o = sum_s softmax(q k_s / sqrt(d))_s v_s over s <= position, for one head of one row, q turned already; k_Sd and v_Sd lie in the cache.
void attend(const float *q, const BFloat16 *k_Sd, const BFloat16 *v_Sd, Index position, Index d, float *score, float *o) {
    float largest = -INFINITY;
    for (Index s = 0; s <= position; s++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Index i = 0; i < d; i++) sum += q[i] * widened(k_Sd[s * d + i]);
        score[s] = sum / std::sqrt(static_cast<float>(d));
        largest = std::fmax(largest, score[s]);
    }
    float sum = 0;
    for (Index s = 0; s <= position; s++) sum += score[s] = std::exp(score[s] - largest);
    std::memset(o, 0, d * sizeof(float));
    for (Index s = 0; s <= position; s++)
        for (Index i = 0; i < d; i++) o[i] += score[s] / sum * widened(v_Sd[s * d + i]);
}

}  // namespace

// x_RD: the embeddings, overwritten. scratch: scratch_size floats.
extern "C" Index scratch_size(const Model *model, Index R, Index longest) {
    return R * ((2 * model->H + 2 * model->K) * model->d + model->F + model->H * longest);
}

extern "C" void decode_step(const Model *model, const Cache *cache, Index R, float *x_RD, const float *cos_Rd,
                            const float *sin_Rd, const Index *position_R, Index longest, float *scratch,
                            float *logits_RV, int threads) {
    const Index D = model->D, F = model->F, H = model->H, K = model->K, d = model->d, group = H / K;
    float *q_RHd = scratch, *k_RKd = q_RHd + R * H * d, *v_RKd = k_RKd + R * K * d, *seen_RHd = v_RKd + R * K * d,
          *hidden_RF = seen_RHd + R * H * d, *score_RHS = hidden_RF + R * F;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> normed_RD(R * D), turned_d(d);  // of every thread for itself: cheaper than waiting for one
        float y[BLOCK], gate[BLOCK];
        const auto norm = [&](const float *weight) {
            for (Index r = 0; r < R; r++) rms_norm(x_RD + r * D, weight, model->eps, D, &normed_RD[r * D]);
        };
        const auto into = [&](const Matrix &W, const float *in, float *out, Index b, Index r) {
            std::memcpy(out + r * W.out + b * BLOCK, y, product(W, b, in + r * W.in, y) * sizeof(float));
        };
        const auto add = [&](const Matrix &W, const float *in, Index b, Index r) {
            const Index n = product(W, b, in + r * W.in, y);
            for (Index j = 0; j < n; j++) x_RD[r * D + b * BLOCK + j] += y[j];
        };
        for (Index l = 0; l < model->layers; l++) {
            const Layer &layer = model->layer[l];
            norm(layer.attention_norm);
#pragma omp for schedule(static) nowait
            for (Index b = 0; b < blocks(layer.wq); b++)
                for (Index r = 0; r < R; r++) into(layer.wq, normed_RD.data(), q_RHd, b, r);
#pragma omp for schedule(static) nowait
            for (Index b = 0; b < blocks(layer.wk); b++)
                for (Index r = 0; r < R; r++) into(layer.wk, normed_RD.data(), k_RKd, b, r);
#pragma omp for schedule(static)
            for (Index b = 0; b < blocks(layer.wv); b++)
                for (Index r = 0; r < R; r++) into(layer.wv, normed_RD.data(), v_RKd, b, r);
#pragma omp for schedule(static)
            for (Index rk = 0; rk < R * K; rk++) {  // the new key and value of each row
                const Index r = rk / K, at = l * cache->layer_stride + r * cache->slot_stride + rk % K * cache->head_stride + position_R[r] * d;
                rotate(k_RKd + rk * d, cos_Rd + r * d, sin_Rd + r * d, d, turned_d.data());
                for (Index i = 0; i < d; i++) {
                    cache->k[at + i] = narrowed(turned_d[i]);
                    cache->v[at + i] = narrowed(v_RKd[rk * d + i]);
                }
            }
#pragma omp for schedule(static)
            for (Index rh = 0; rh < R * H; rh++) {
                const Index r = rh / H, kept = l * cache->layer_stride + r * cache->slot_stride + rh % H / group * cache->head_stride;
                rotate(q_RHd + rh * d, cos_Rd + r * d, sin_Rd + r * d, d, turned_d.data());
                attend(turned_d.data(), cache->k + kept, cache->v + kept, position_R[r], d, score_RHS + rh * longest, seen_RHd + rh * d);
            }
#pragma omp for schedule(static)
            for (Index b = 0; b < blocks(layer.wo); b++)
                for (Index r = 0; r < R; r++) add(layer.wo, seen_RHd, b, r);
            norm(layer.ffn_norm);
#pragma omp for schedule(static)
            for (Index b = 0; b < blocks(layer.w1); b++)
                for (Index r = 0; r < R; r++) {
                    const Index n = product(layer.w1, b, &normed_RD[r * D], gate);
                    product(layer.w3, b, &normed_RD[r * D], y);
                    for (Index j = 0; j < n; j++) hidden_RF[r * F + b * BLOCK + j] = gate[j] / (1 + std::exp(-gate[j])) * y[j];
                }
#pragma omp for schedule(static)
            for (Index b = 0; b < blocks(layer.w2); b++)
                for (Index r = 0; r < R; r++) add(layer.w2, hidden_RF, b, r);
        }
        norm(model->norm);
#pragma omp for schedule(static)
        for (Index b = 0; b < blocks(model->output); b++)
            for (Index r = 0; r < R; r++) into(model->output, normed_RD.data(), logits_RV, b, r);
    }
}
