/** Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), doi:10.1080/01621459.1927.10502953. */

/** Quantile of the normal distribution for 95 %, two-sided. */
const Z = 1.959964;

/** The 95 % interval of a share; null when there is nothing to take a share of. */
export function wilson(count: number, of: number): [low: number, high: number] | null {
  if (of <= 0) return null;
  const share = count / of;
  const middle = share + (Z * Z) / (2 * of);
  const reach = Z * Math.sqrt((share * (1 - share)) / of + (Z * Z) / (4 * of * of));
  const scale = 1 + (Z * Z) / of;
  return [Math.max((middle - reach) / scale, 0), Math.min((middle + reach) / scale, 1)];
}
