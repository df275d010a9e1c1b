// A small model that runs in the page: attention layers alone, as `page_model` in pagemodel.py
// packs them. A matrix is one array, row by row. T: tokens, d: width of the residual stream,
// H: heads, D: width of one head.

/** Return a function from tokens (indices) to the weights of all heads and what comes next. */
function pageModel(packed) {
  const { vocabulary, width: d, layers: L, heads: H, head_width: D, base } = packed;
  const parameters = unpackHalves(packed.parameters);
  let used = 0;
  const take = (rows, columns) => parameters.subarray(used, (used += rows * columns));
  const embed = take(vocabulary.length, d);
  const layers = Array.from({ length: L }, () => [take(H * D, d), take(H * D, d), take(H * D, d), take(d, H * D)]);
  const predict = take(vocabulary.length, d);

  return (tokens) => {
    const T = tokens.length;
    const weights = new Float32Array(L * H * T * T);
    const x = new Float32Array(T * d); // the residual stream
    tokens.forEach((token, t) => x.set(embed.subarray(token * d, (token + 1) * d), t * d));
    layers.forEach(([q, k, v, o], l) => {
      const input = normed(x, d);
      const [queries, keys] = [q, k].map((weight) => rotated(times(input, weight, d), H, D, base));
      const seen = weights.subarray(l * H * T * T, (l + 1) * H * T * T);
      const mixed = attended(queries, keys, times(input, v, d), seen, { T, H, D });
      times(mixed, o, H * D).forEach((share, i) => {
        x[i] += share;
      });
    });
    const last = normed(x.subarray((T - 1) * d), d);
    return { weights, next: softmax(times(last, predict, d)) };
  };
}

/** Fill in the weights (H, T, T) and return the mixtures of values (T, H * D). */
function attended(queries, keys, values, weights, { T, H, D }) {
  const mixed = new Float32Array(T * H * D);
  for (let head = 0; head < H; head++) {
    for (let t = 0; t < T; t++) {
      const at = (token) => (token * H + head) * D; // where this head's numbers begin
      const row = weights.subarray((head * T + t) * T, (head * T + t) * T + t + 1); // causal
      for (let seen = 0; seen <= t; seen++) {
        let score = 0;
        for (let i = 0; i < D; i++) score += queries[at(t) + i] * keys[at(seen) + i];
        row[seen] = score / Math.sqrt(D);
      }
      softmax(row);
      for (let seen = 0; seen <= t; seen++) {
        for (let i = 0; i < D; i++) mixed[at(t) + i] += row[seen] * values[at(seen) + i];
      }
    }
  }
  return mixed;
}

/** Turn the pairs (i, i + D / 2) of each head by the token's position; without a base, not at all. */
function rotated(x, H, D, base) {
  if (base == null) return x;
  const half = D / 2;
  for (let begin = 0; begin < x.length; begin += D) {
    const position = Math.floor(begin / (H * D));
    for (let i = 0; i < half; i++) {
      const angle = position * base ** (-i / half);
      const [cos, sin, a, b] = [Math.cos(angle), Math.sin(angle), x[begin + i], x[begin + half + i]];
      x[begin + i] = a * cos - b * sin;
      x[begin + half + i] = a * sin + b * cos;
    }
  }
  return x;
}

/** The product x (T, n) times weight (m, n), transposed: (T, m). */
function times(x, weight, n) {
  const [T, m] = [x.length / n, weight.length / n];
  const product = new Float32Array(T * m);
  for (let t = 0; t < T; t++) {
    for (let j = 0; j < m; j++) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += x[t * n + i] * weight[j * n + i];
      product[t * m + j] = sum;
    }
  }
  return product;
}

/** Each row of d numbers divided by the root of its mean square. */
function normed(x, d) {
  const result = Float32Array.from(x);
  for (let begin = 0; begin < x.length; begin += d) {
    const row = result.subarray(begin, begin + d);
    const square = row.reduce((sum, value) => sum + value * value, 0) / d;
    row.forEach((value, i) => {
      row[i] = value / Math.sqrt(square + 2 ** -23); // as in PyTorch, float32's epsilon
    });
  }
  return result;
}

/** Turn scores into probabilities, in place. */
function softmax(scores) {
  const largest = scores.reduce((most, score) => Math.max(most, score));
  scores.forEach((score, i) => {
    scores[i] = Math.exp(score - largest);
  });
  const sum = scores.reduce((total, part) => total + part, 0);
  scores.forEach((part, i) => {
    scores[i] = part / sum;
  });
  return scores;
}

/** Numbers from a text that `pack_halves` returned: float16, which older browsers cannot read. */
function unpackHalves(text) {
  const bytes = atob(text.slice("f16:".length));
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    numbers[i] = bits >> 15 ? -size : size;
  }
  return numbers;
}
