/** The web's crypto: global nearly everywhere, and a module in Node.js 18 and where a page is not secure. */

/** A name that bundlers do not follow: browsers and edge runtimes have no such module, and do not need it. */
export function nodeModule<T>(name: string): Promise<T> {
  return import(/* webpackIgnore: true */ /* @vite-ignore */ name) as Promise<T>;
}

export async function webCrypto(): Promise<Crypto> {
  const here = (globalThis as { crypto?: Crypto }).crypto;
  if (here?.subtle) return here;
  return (await nodeModule<{ webcrypto: Crypto }>("node:crypto")).webcrypto;
}

/** 128 random bits as hexadecimal digits. */
export async function randomHex(): Promise<string> {
  const here = (globalThis as { crypto?: Crypto }).crypto ?? (await webCrypto());
  return Array.from(here.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
