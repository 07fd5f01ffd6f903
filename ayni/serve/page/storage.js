// The browser's storage may be blocked, full, or hold what another version of this page wrote: never a reason to fail.

const of = (name) => {
  try {
    return window[name];
  } catch {
    return null;
  }
};

export const localStorageOf = () => of("localStorage");
export const sessionStorageOf = () => of("sessionStorage");

/** The value that was written as JSON under `name`, or `otherwise`. */
export function read(storage, name, otherwise) {
  try {
    return JSON.parse(storage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Writes JSON text under `name`; null removes it. */
export function write(storage, name, text) {
  try {
    if (text === null) storage.removeItem(name);
    else storage.setItem(name, text);
  } catch {
    // Then it is not kept.
  }
}
