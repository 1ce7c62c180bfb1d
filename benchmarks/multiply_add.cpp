// Independent chains of multiply-adds in registers: what the core could do if nothing else were.
// Compiled by mixture.py, which counts 2 flops a lane.

#include <cstdint>

namespace {
#if defined(__AVX512F__)
constexpr int VECTOR = 64;
#elif defined(__AVX__)
constexpr int VECTOR = 32;
#else
constexpr int VECTOR = 16;
#endif
constexpr int CHAINS = 10;  // more than latency times units of the cores known; fits 16 registers

template <typename T>
double chains(int64_t steps) {
  typedef T Vec __attribute__((vector_size(VECTOR)));
  const Vec factor = Vec{} + T(0.999), term = Vec{} + T(1e-4);
  Vec a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{}, i{}, j{};
  // Single variables: of an array the compiler would keep a copy in memory for the empty asm, which
  // holds it to one multiply-add a step.
  const auto step = [&](Vec &sum) __attribute__((always_inline)) {
    sum = sum * factor + term;
#if defined(__x86_64__)
    __asm__("" : "+x"(sum));
#elif defined(__aarch64__)
    __asm__("" : "+w"(sum));
#endif
  };
  for (int64_t n = 0; n < steps; ++n)
    step(a), step(b), step(c), step(d), step(e), step(f), step(g), step(h), step(i), step(j);
  const Vec sum = a + b + c + d + e + f + g + h + i + j;
  double total = 0;
  for (int lane = 0; lane < int(VECTOR / sizeof(T)); ++lane) total += double(sum[lane]);
  return total;
}
}  // namespace

extern "C" {
double chains_float32(int64_t steps) { return chains<float>(steps); }
double chains_float64(int64_t steps) { return chains<double>(steps); }
int64_t flops_a_step_float32() { return 2 * CHAINS * VECTOR / 4; }
int64_t flops_a_step_float64() { return 2 * CHAINS * VECTOR / 8; }
}
