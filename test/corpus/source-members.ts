/** Strings, punctuation, and the rest: numbers and literals. */
const TOKEN = /"(?:[^"\\]+|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+/g;

/**
 * The top-level members of a JSON object with the source text of their values; of a repeated key the last value, at the
 * first place. Undefined when `text` is JSON but no object. Shares nothing with the product's own scanner, on purpose.
 * @throws SyntaxError when it is not JSON
 */
export function sourceMembers(text: string): Map<string, string> | undefined {
  const document: unknown = JSON.parse(text);
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    return undefined;
  const members = new Map<string, string>();
  let depth = 0;
  let key: string | undefined;
  let [start, end] = [-1, -1];
  const memberEnds = () => {
    if (key !== undefined) members.set(key, text.slice(start, end));
    key = undefined;
  };
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (token === '}' || token === ']') depth--;
    if (depth === 0) {
      memberEnds(); // the closing brace of the document; at its opening one there is none yet
    } else if (depth === 1 && token === ',') {
      memberEnds();
    } else if (depth === 1 && key === undefined) {
      key = JSON.parse(token) as string;
      start = -1;
    } else if (depth > 1 || token !== ':') {
      if (start < 0) start = index;
      end = index + token.length;
    }
    if (token === '{' || token === '[') depth++;
  }
  return members;
}
