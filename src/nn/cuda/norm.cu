// A norm and its activation in three steps: moments of pieces of each group, one line a channel (factor, offset), y = act(factor x + offset).
// Compiled on the machine that it runs on (NVRTC), so it includes nothing.
// Sums have one fixed order: the answer does not depend on what else the GPU does.

#define THREADS 256

struct F32 {
    typedef float type;
    static __device__ float get(float v) { return v; }
    static __device__ float put(float v) { return v; }
};

struct F16 {
    typedef unsigned short type;
    static __device__ float get(unsigned short v) {
        float f;
        asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
        return f;
    }
    static __device__ unsigned short put(float v) {
        unsigned short h;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
        return h;
    }
};

struct BF16 {
    typedef unsigned short type;
    static __device__ float get(unsigned short v) { return __uint_as_float((unsigned int)v << 16); }
    static __device__ unsigned short put(float v) {
        unsigned int bits = __float_as_uint(v);
        if (v != v) return (unsigned short)(bits >> 16 | 0x40u);
        // To the nearest, ties to the even one.
        return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
};

// The sum of one value a thread, told to all of them.
static __device__ float total(float value, float *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (unsigned int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    float sum = shared[0];
    __syncthreads();
    return sum;
}

// Mean, and sum of squared differences from it, of piece blockIdx.y of group blockIdx.x; a group is `length` values in a row.
template <class T>
static __device__ void moments(const typename T::type *x, float *pieces, long long length, long long piece) {
    __shared__ float shared[THREADS];
    const long long from = blockIdx.y * piece;
    const long long to = from + piece < length ? from + piece : length;
    x += blockIdx.x * length;
    float sum = 0.0f;
    for (long long i = from + threadIdx.x; i < to; i += THREADS) sum += T::get(x[i]);
    const float mean = total(sum, shared) / (float)(to - from);
    float squares = 0.0f;
    for (long long i = from + threadIdx.x; i < to; i += THREADS) {
        const float d = T::get(x[i]) - mean;
        squares += d * d;
    }
    squares = total(squares, shared);
    if (threadIdx.x == 0) {
        float *out = pieces + 2 * ((long long)blockIdx.x * gridDim.y + blockIdx.y);
        out[0] = mean;
        out[1] = squares;
    }
}

template <class T>
static __device__ void apply(const typename T::type *x, typename T::type *y, const float *lines, long long voxels, float slope) {
    const float factor = lines[2 * (long long)blockIdx.x], offset = lines[2 * (long long)blockIdx.x + 1];
    x += blockIdx.x * voxels;
    y += blockIdx.x * voxels;
    for (long long i = (long long)blockIdx.y * THREADS + threadIdx.x; i < voxels; i += (long long)gridDim.y * THREADS) {
        const float v = fmaf(T::get(x[i]), factor, offset);
        y[i] = T::put(v > 0.0f ? v : v * slope);
    }
}

#define FOR_TYPE(NAME, T)                                                                                              \
    extern "C" __global__ void moments_##NAME(const T::type *x, float *pieces, long long length, long long piece) {    \
        moments<T>(x, pieces, length, piece);                                                                          \
    }                                                                                                                  \
    extern "C" __global__ void apply_##NAME(const T::type *x, T::type *y, const float *lines, long long voxels,        \
                                            float slope) {                                                             \
        apply<T>(x, y, lines, voxels, slope);                                                                          \
    }
FOR_TYPE(f32, F32)
FOR_TYPE(f16, F16)
FOR_TYPE(bf16, BF16)

// The lines of all channels of one group of one image; without pieces the statistics are mean 0 and variance 1.
// Source of the combination of pieces: Chan, Golub and LeVeque, doi:10.1080/00031305.1983.10483115.
extern "C" __global__ void lines(const float *pieces, const float *weight, const float *bias, float *lines, int rows,
                                 int channels, int groups, long long length, long long piece, int count, double eps) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    double seen = 0.0, mean = 0.0, squares = 0.0;
    for (int p = 0; p < count; p++) {
        const long long left = length - p * piece;
        const double n = (double)(left < piece ? left : piece);
        const float *of = pieces + 2 * ((long long)row * count + p);
        const double delta = of[0] - mean, all = seen + n;
        mean += delta * n / all;
        squares += of[1] + delta * delta * seen * n / all;
        seen = all;
    }
    const double scale = count > 0 ? 1.0 / sqrt(squares / seen + eps) : 1.0;
    const int each = channels / groups, image = row / groups, first = row % groups * each;
    for (int c = first; c < first + each; c++) {
        const double factor = scale * weight[c];
        float *line = lines + 2 * ((long long)image * channels + c);
        line[0] = (float)factor;
        line[1] = (float)(bias[c] - mean * factor);
    }
}
