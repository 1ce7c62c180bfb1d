// ln sum_j N(z; mu_j, diag s_j^2) by direct differences, fused: no array of pairs is ever stored.
//
// A pair's energy k_j + sum_d t_d^2 >= 0 says how many bits its term lies below a common offset.
// Columns lie in panels one cache line wide; ROWS rows by one panel stay in registers.
//
// - Squares only add up, in rounded arithmetic too. So a block whose pairs all lie `cut` bits below
//   their row's best term is left after any few dimensions: they could not have come back.
// - A pair beyond `cut` counts as exactly 0 whether or not its block was left, and a row's reference
//   follows from the columns alone: a result does not depend on the rows computed beside it.
// - The reference is an integer, so a sum is carried over to a new one exactly.
// - 16-bit integers tell blocks that are too far (screen.py), which changes no result, and sum up
//   dimensions in which columns hardly differ (fixed.py): processors do twice as many in a cycle.
//
// Plain C functions, compiled where they run and called by native.py. Rows and columns are finite.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR = 64, ROWS = 8;
#elif defined(__AVX__)
constexpr int VECTOR = 32, ROWS = 4;
#elif defined(__aarch64__)
constexpr int VECTOR = 16, ROWS = 4;
#else
constexpr int VECTOR = 16, ROWS = 2;
#endif
constexpr int PANEL = 64;  // bytes
constexpr int PARTS = PANEL / VECTOR;
constexpr int STEP = 8;    // least dimensions between two looks at whether a block can be left
constexpr int LOOKS = 8;   // most looks
constexpr int FLUSH = 32;  // panels whose terms are added in T before they go to double
constexpr int TILE = 256;  // most rows that pass over a panel: a screen lists few of them
constexpr int CLOSE = 64;  // that many where all may be close, and their terms stay in the cache

template <typename T>
struct Kind;
template <>
struct Kind<float> {
  typedef float Vec __attribute__((vector_size(VECTOR)));
  typedef uint32_t Bits __attribute__((vector_size(VECTOR)));
  static constexpr int MANTISSA = 23;
  static constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: added, the low bits are the integer
};
template <>
struct Kind<double> {
  typedef double Vec __attribute__((vector_size(VECTOR)));
  typedef uint64_t Bits __attribute__((vector_size(VECTOR)));
  static constexpr int MANTISSA = 52;
  static constexpr double ROUND = 6755399441055744.0;  // 1.5 * 2^52
};
template <typename T>
using Vec = typename Kind<T>::Vec;
template <typename T>
using Bits = typename Kind<T>::Bits;

typedef int32_t Integers __attribute__((vector_size(VECTOR)));

// sum + the products of the two 16-bit integers that each lane of a and b holds.
inline Integers multiply_add(Integers a, Integers b, Integers sum) {
#if defined(__AVX512BW__)
  return sum + (Integers)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && !defined(__AVX512F__)
  return sum + (Integers)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return sum + (a >> 16) * (b >> 16) + (a << 16 >> 16) * (b << 16 >> 16);
#endif
}

// sum + the squares of (z - mu) * rate / 2^15 of two dimensions a lane, in 16 bits.
#if defined(__AVX512BW__)
#define SCREENS 1
inline Integers squares(Integers z, Integers mu, Integers rate, Integers sum) {
  const __m512i t = _mm512_mulhrs_epi16(_mm512_sub_epi16((__m512i)z, (__m512i)mu), (__m512i)rate);
  return sum + (Integers)_mm512_madd_epi16(t, t);
}
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define SCREENS 1
inline Integers squares(Integers z, Integers mu, Integers rate, Integers sum) {
  const __m256i t = _mm256_mulhrs_epi16(_mm256_sub_epi16((__m256i)z, (__m256i)mu), (__m256i)rate);
  return sum + (Integers)_mm256_madd_epi16(t, t);
}
#else
#define SCREENS 0
inline Integers squares(Integers, Integers, Integers, Integers sum) { return sum; }
#endif

template <typename T>
inline Vec<T> load(const T *from) {
  Vec<T> v;
  std::memcpy(&v, from, VECTOR);
  return v;
}

template <typename T>
inline Vec<T> every(T x) {
  return x - Vec<T>{};
}

// Lanes that are not beyond the limit.
template <typename T>
inline Bits<T> near(Vec<T> energy, T limit) {
  return (Bits<T>)(energy <= every<T>(limit));
}

template <typename T>
inline Vec<T> least(const Vec<T> (&energy)[PARTS]) {
  Vec<T> found = energy[0];
#pragma GCC unroll 4
  for (int part = 1; part < PARTS; ++part)
    found = energy[part] < found ? energy[part] : found;
  return found;
}

template <typename T>
inline bool any(Bits<T> lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)lanes, (__m512i)lanes) != 0;
#elif defined(__AVX__)
  return !_mm256_testz_si256((__m256i)lanes, (__m256i)lanes);
#else
  uint64_t words[VECTOR / 8], found = 0;
  std::memcpy(words, &lanes, VECTOR);
  for (uint64_t word : words) found |= word;
  return found != 0;
#endif
}

// 2^f for |f| <= 1/2: the polynomial of degree 5 whose largest relative error is least, 7.5e-8.
inline Vec<float> series(Vec<float> f) {
  Vec<float> p = every(1.327647217e-3f);
  p = p * f + 9.675541331e-3f;
  p = p * f + 5.550713273e-2f;
  p = p * f + 2.402211972e-1f;
  p = p * f + 6.931469671e-1f;
  return p * f + 1.000000072f;
}

// The same by Taylor's series, ln(2)^n / n! down to 4e-18.
inline Vec<double> series(Vec<double> f) {
  constexpr double C[] = {1.3691488853904128e-12, 2.5678435993488202e-11, 4.4455382718708115e-10,
                          7.0549116208011233e-9,  1.0178086009239699e-7,  1.3215486790144309e-6,
                          1.5252733804059841e-5,  1.5403530393381608e-4,  1.3333558146428443e-3,
                          9.6181291076284772e-3,  5.5504108664821580e-2,  2.4022650695910071e-1,
                          6.9314718055994531e-1};
  Vec<double> p = every(C[0]);
  for (int n = 1; n < 13; ++n) p = p * f + C[n];
  return p * f + 1.0;
}

// 2^x for -cut - 1 <= x <= 0: no result is subnormal.
template <typename T>
inline Vec<T> power(Vec<T> x) {
  const Vec<T> shifted = x + Kind<T>::ROUND;
  const Vec<T> p = series(x - (shifted - Kind<T>::ROUND));
  return (Vec<T>)((Bits<T>)p + ((Bits<T>)shifted << Kind<T>::MANTISSA));
}

// The registers of a block: the compiler must not fetch an operand from memory again for each use.
template <typename V, typename T>
inline V held(const T *from) {
  V v;
  std::memcpy(&v, from, VECTOR);
#if defined(__x86_64__)
  __asm__("" : "+x"(v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(v));
#endif
  return v;
}

// Rows that pass over the panels together, and what is known of each: its sum so far is
// (sum + the lanes of recent) * 2^(offset - reference).
template <typename T>
struct Rows {
  Vec<T> recent[TILE];
  double sum[TILE];
  T reference[TILE], limit[TILE], cut;
  int32_t beyond[TILE + ROWS];  // the limit as the screen counts
};

// Lower bounds of distances in 16-bit integers, see screen.py: columns in panels, and rows.
struct Screen {
  const int32_t *panels, *z;
  int64_t pairs;
  double unit, slack;
};

// The largest sum of a pair that may lie within the limit.
inline int32_t counted(const Screen &screen, double limit) {
  const double edge = (std::sqrt(limit > 0 ? limit : 0) + screen.slack) / screen.unit;
  const double sum = edge * edge * (1 + 1e-6) + 1;
  return sum < 2147483647.0 ? int32_t(sum) : 2147483647;
}

// Which of ROWS rows, `first` and on, may have a pair within their limit with one panel: appended to
// `listed`; how many are listed now. Without a branch: which are close is as good as random.
template <int WIDTH>
__attribute__((noinline)) int list_close(const int32_t *panel, const int32_t *const *x,
                                         const int32_t *beyond, int64_t pairs, int first,
                                         int *listed, int number) {
  constexpr int LANES = VECTOR / 4, WIDE = WIDTH / LANES;
  Integers sum[ROWS][WIDE];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int part = 0; part < WIDE; ++part)
      std::memcpy(&sum[r][part], panel + part * LANES, VECTOR);
  panel += WIDTH;
#pragma GCC unroll 1
  for (int64_t d = 0; d < pairs; ++d, panel += 2 * WIDTH) {
    Integers mu[WIDE], rate[WIDE];
#pragma GCC unroll 4
    for (int part = 0; part < WIDE; ++part) {
      mu[part] = held<Integers>(panel + part * LANES);
      rate[part] = held<Integers>(panel + WIDTH + part * LANES);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const Integers z = x[r][d] - Integers{};
#pragma GCC unroll 4
      for (int part = 0; part < WIDE; ++part)
        sum[r][part] = squares(z, mu[part], rate[part], sum[r][part]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
    Integers close{};
#pragma GCC unroll 4
    for (int part = 0; part < WIDE; ++part)
      close |= sum[r][part] <= (beyond[r] - Integers{});
    listed[number] = first + r;
    number += int(any<float>((Bits<float>)close));
  }
  return number;
}

template <typename T>
inline void flush(Rows<T> &rows, int row) {
  T lanes[VECTOR / sizeof(T)];
  std::memcpy(lanes, &rows.recent[row], VECTOR);
  double sum = 0.0;
  for (T lane : lanes) sum += double(lane);
  rows.sum[row] += sum;
  rows.recent[row] = Vec<T>{};
}

// A term larger than the reference: the sum so far is told in units of the new one.
template <typename T>
__attribute__((noinline)) void refer(Rows<T> &rows, int row, const T *energy,
                                     const Screen &screen) {
  T least = rows.reference[row];
  for (int lane = 0; lane < PANEL / int(sizeof(T)); ++lane)
    least = energy[lane] < least ? energy[lane] : least;
  const T reference = std::floor(least);
  const T gap = rows.reference[row] - reference;  // infinite for the first term, and the sum is 0
  const T factor = gap < T(1000) ? std::ldexp(T(1), -int(gap)) : T(0);
  rows.recent[row] *= factor;
  rows.sum[row] *= double(factor);
  rows.reference[row] = reference;
  rows.limit[row] = reference + rows.cut;
  if (screen.pairs) rows.beyond[row] = counted(screen, rows.limit[row]);
}

// Adds the terms of one row's pairs with one panel, some of which are close.
template <typename T>
inline void add(Rows<T> &rows, int row, const T *energy, const Screen &screen) {
  Vec<T> e[PARTS];
#pragma GCC unroll 4
  for (int part = 0; part < PARTS; ++part) e[part] = load(energy + part * (VECTOR / int(sizeof(T))));
  if (__builtin_expect(any<T>((Bits<T>)(least<T>(e) < every<T>(rows.reference[row]))), 0))
    refer(rows, row, energy, screen);
  const Vec<T> reference = every<T>(rows.reference[row]);
  Vec<T> sum = rows.recent[row];
#pragma GCC unroll 4
  for (int part = 0; part < PARTS; ++part)
    // Energies beyond the limit may be infinite; their bits are dropped after the arithmetic.
    sum += (Vec<T>)((Bits<T>)power<T>(reference - e[part]) & near<T>(e[part], rows.limit[row]));
  rows.recent[row] = sum;
}

// Dimensions in 16-bit integers, see fixed.py: those of columns in panels, those of rows.
struct Fixed {
  const int32_t *panels, *z;
  int64_t dims;
  double unit;
};

// What is asked: `count` rows over the columns first .. last. As in native.py.
struct Call {
  const void *panels, *z;
  const int64_t *own;
  int64_t count, dims, first, last;
  double offset;
  int64_t cut;
  Fixed fixed;
  Screen screen;
  double *exponent, *total;
};

// Adds them to the energies of ROWS rows by one panel.
__attribute__((noinline)) void add(const int32_t *panel, const int32_t *const (&x)[ROWS],
                                   int64_t dims, float unit, float *const (&energy)[ROWS]) {
  constexpr int LANES = VECTOR / 4, WIDTH = PANEL / 4;
  Integers sum[ROWS][PARTS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part)
      std::memcpy(&sum[r][part], panel + part * LANES, VECTOR);
#pragma GCC unroll 1
  for (int64_t d = 0; d < dims; ++d) {
    panel += WIDTH;
    Integers weights[PARTS];
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part)
      weights[part] = held<Integers>(panel + part * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const Integers factors = x[r][d] - Integers{};
#pragma GCC unroll 4
      for (int part = 0; part < PARTS; ++part)
        sum[r][part] = multiply_add(weights[part], factors, sum[r][part]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part) {
      float *const at = energy[r] + part * LANES;
      const Vec<float> e = load(at) + __builtin_convertvector(sum[r][part], Vec<float>) * unit;
      std::memcpy(at, &e, VECTOR);
    }
}

// Adds them for the `waiting` rows that are close to a panel; how many still are, now listed first.
int add(const Fixed &fixed, int64_t panel, const Rows<float> &rows, int waiting, int *close_rows,
        float (*kept)[PANEL / 4]) {
  const int32_t *const weights = fixed.panels + panel * (PANEL / 4) * (1 + fixed.dims);
  for (int n = 0; n < ROWS; ++n) close_rows[waiting + n] = TILE;  // fills up the last group
  int still = 0;
  for (int k = 0; k < waiting; k += ROWS) {
    const int32_t *x[ROWS];
    float *energy[ROWS];
    for (int r = 0; r < ROWS; ++r) {
      const int row = close_rows[k + r];
      x[r] = fixed.z + (row < TILE ? row : 0) * fixed.dims;
      energy[r] = kept[row];
    }
    add(weights, x, fixed.dims, float(fixed.unit), energy);
    for (int r = 0; r < ROWS; ++r) {
      const int row = close_rows[k + r];
      Vec<float> e[PARTS];
#pragma GCC unroll 4
      for (int part = 0; part < PARTS; ++part) e[part] = load(kept[row] + part * (VECTOR / 4));
      close_rows[still] = row;
      still += int(any<float>(near<float>(least<float>(e), rows.limit[row % TILE]))) &
               int(row < TILE);
    }
  }
  return still;
}

template <typename T>
void tile(const Call &call, int64_t row, int count) {
  const T *const panels = static_cast<const T *>(call.panels);
  const T *const z = static_cast<const T *>(call.z) + row * call.dims;
  const int64_t *const own = call.own + row;
  const int64_t dims = call.dims, first = call.first, last = call.last;
  Fixed fixed = call.fixed;
  Screen screen = call.screen;
  fixed.z += row * fixed.dims;
  screen.z += row * screen.pairs;
  constexpr int WIDTH = PANEL / int(sizeof(T)), LANES = VECTOR / int(sizeof(T));
  constexpr T INFINITE = std::numeric_limits<T>::infinity();
  Rows<T> rows;
  alignas(PANEL) T kept[TILE + ROWS][WIDTH];
  int close_rows[TILE + ROWS], listed[TILE + ROWS];
  const int32_t *steps[TILE + ROWS];
  rows.cut = T(call.cut);
  for (int r = 0; r < count + ROWS; ++r) {  // the last block is filled up with rows close to nothing
    steps[r] = screen.z + (r < count ? r : 0) * screen.pairs;
    rows.beyond[r] = r < count ? std::numeric_limits<int32_t>::max() : -1;
  }
  for (int r = 0; r < count; ++r) {
    rows.recent[r] = Vec<T>{};
    rows.sum[r] = 0.0;
    rows.reference[r] = INFINITE;
    rows.limit[r] = std::numeric_limits<T>::max();  // an infinite energy is no term
    listed[r] = r;  // all rows, where there is no screen
  }
  // What a screen lists is hardly ever told to be far before the last dimensions.
  const int64_t few = dims > LOOKS * STEP ? (dims + LOOKS - 1) / LOOKS : STEP;
  const int64_t step = screen.pairs ? dims : few;
  const int64_t stride = WIDTH * (2 * dims + 1);
  for (int64_t panel = first / WIDTH; panel * WIDTH < last; ++panel) {
    const int64_t left = panel * WIDTH;
    const bool edge = left < first || left + WIDTH > last;
    const T *const constants = panels + panel * stride, *const weights = constants + WIDTH;
    int number = count;
    if constexpr (SCREENS && WIDTH * 4 >= VECTOR) if (screen.pairs) {
      const int32_t *const place = screen.panels + panel * WIDTH * (1 + 2 * screen.pairs);
      number = 0;
      // Few rows will want the panel, and each would wait for it: fetched while all are screened.
      for (int64_t at = 0; at < stride; at += WIDTH) __builtin_prefetch(constants + at, 0, 2);
      for (int top = 0; top < count; top += ROWS)
        number = list_close<WIDTH>(place, steps + top, rows.beyond + top, screen.pairs, top, listed,
                                   number);
    }
    int waiting = 0;
    for (int top = 0; top < number; top += ROWS) {
      int row[ROWS];
      const T *x[ROWS];
      T limit[ROWS];
      for (int r = 0; r < ROWS; ++r) {  // a short last block repeats its last row
        row[r] = listed[top + r < number ? top + r : number - 1];
        x[r] = z + row[r] * dims;
        limit[r] = rows.limit[row[r]];
      }
      Vec<T> energy[ROWS][PARTS];
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) energy[r][part] = load(constants + part * LANES);
      bool close = true;
      for (int64_t d = 0; d < dims && close;) {
        const int64_t stop = d + step < dims ? d + step : dims;
#pragma GCC unroll 1
        for (; d < stop; ++d) {
          const T *const at = weights + d * 2 * WIDTH;
#pragma GCC unroll 4
          for (int part = 0; part < PARTS; ++part) {
            const Vec<T> rate = held<Vec<T>>(at + part * LANES),
                         shift = held<Vec<T>>(at + WIDTH + part * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r) {
              // float: shift is mu / s, one multiply-add. double: shift is mu, and z - mu is
              // exact where it is small, whatever the scale.
              const Vec<T> t = sizeof(T) == 4 ? x[r][d] * rate - shift : (x[r][d] - shift) * rate;
              energy[r][part] += t * t;
            }
          }
        }
        Bits<T> here{};
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) here |= near<T>(least<T>(energy[r]), limit[r]);
        close = any<T>(here);
      }
      if (!close) continue;
      // The terms are added when all rows have passed: there is then no chain to wait for.
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part)
          std::memcpy(kept[row[r]] + part * LANES, &energy[r][part], VECTOR);
      // Without a branch: which rows are close is as good as random, and a wrong guess costs more
      // than the terms of a panel.
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        close_rows[waiting] = row[r];
        waiting += int(any<T>(near<T>(least<T>(energy[r]), limit[r]))) & int(top + r < number);
      }
    }
    if constexpr (sizeof(T) == 4)
      if (fixed.dims) waiting = add(fixed, panel, rows, waiting, close_rows, kept);
    for (int k = 0; k < waiting; ++k) {
      const int row = close_rows[k];
      const int64_t mine = own[row] - left;
      if (mine >= 0 && mine < WIDTH) kept[row][mine] = INFINITE;
      if (edge)
        for (int lane = 0; lane < WIDTH; ++lane)
          if (left + lane < first || left + lane >= last) kept[row][lane] = INFINITE;
      add<T>(rows, row, kept[row], screen);
    }
    if (panel % FLUSH == FLUSH - 1)
      for (int r = 0; r < count; ++r) flush(rows, r);
  }
  for (int r = 0; r < count; ++r) {
    flush(rows, r);
    call.exponent[row + r] = call.offset - double(rows.reference[r]);
    call.total[row + r] = rows.sum[r];
  }
}

template <typename T>
void sums(const Call &call) {
  const int64_t step = call.screen.pairs ? TILE : CLOSE;
  for (int64_t row = 0; row < call.count; row += step)
    tile<T>(call, row, int(call.count - row < step ? call.count - row : step));
}

}  // namespace

extern "C" {

// (M, S) of `count` rows over the columns first .. last of packed panels; see native.py.
void collapsekit_sums_float32(const Call *call) { sums<float>(*call); }
void collapsekit_sums_float64(const Call *call) { sums<double>(*call); }

// Whether 16-bit integers are worth it.
int collapsekit_fast_integers() {
#if defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
  return 1;
#else
  return 0;
#endif
}
}
