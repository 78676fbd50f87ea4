/** A store for Node.js: one file a payment, in a folder on a disk that honours fsync, for its owner's eyes only. */
import { createHash, randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Payment, Store } from "./payments.js";

const hasCode = (fault: unknown, code: string): boolean => fault instanceof Error && "code" in fault && fault.code === code;

function sameSale(one: Payment, other: Payment): boolean {
  return one.instance === other.instance && one.posId === other.posId
    && isDeepStrictEqual(JSON.parse(one.sale), JSON.parse(other.sale));
}

function paymentOf(text: string): Payment {
  const { instance, posId, key, sale, createdAt } = JSON.parse(text) as Partial<Payment>;
  if (typeof instance !== "string" || typeof posId !== "number" || typeof key !== "string" || typeof sale !== "string"
    || typeof createdAt !== "number") throw new Error("it holds no payment");
  return { instance, posId, key, sale, createdAt };
}

export class FileStore implements Store {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async begin(payment: Payment): Promise<Payment> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#path(payment);
    const draft = `${path}.${randomUUID()}.draft`;
    try {
      const file = await open(draft, "wx", 0o600);
      try {
        await file.writeFile(JSON.stringify(payment));
        await file.sync();
      } finally {
        await file.close();
      }
      let kept = payment;
      try {
        // Fails where the key is taken, unlike a renaming.
        await link(draft, path);
      } catch (fault) {
        if (!hasCode(fault, "EEXIST")) throw fault;
        kept = await this.#load(path);
        if (!sameSale(kept, payment)) throw new Error(`the key ${payment.key} is in the store with another sale`);
      }
      await this.#sync();
      return kept;
    } finally {
      await rm(draft, { force: true });
    }
  }

  async end(payment: Payment): Promise<void> {
    await rm(this.#path(payment), { force: true });
    await this.#sync();
  }

  async open(): Promise<Payment[]> {
    const kept: Payment[] = [];
    const names = await readdir(this.#folder).catch((fault: unknown) => {
      if (hasCode(fault, "ENOENT")) return [];
      throw fault;
    });
    for (const name of names.filter((name) => name.endsWith(".json"))) {
      try {
        kept.push(await this.#load(join(this.#folder, name)));
      } catch (fault) {
        // Ended by another process meanwhile.
        if (!hasCode(fault, "ENOENT")) throw fault;
      }
    }
    return kept.sort((one, other) => one.createdAt - other.createdAt);
  }

  #path({ instance, key }: Payment): string {
    return join(this.#folder, `${createHash("sha256").update(`${instance}\n${key}`).digest("hex").slice(0, 40)}.json`);
  }

  async #load(path: string): Promise<Payment> {
    const text = await readFile(path, "utf8");
    try {
      return paymentOf(text);
    } catch (cause) {
      throw new Error(`${path} is damaged`, { cause });
    }
  }

  /** The names in the folder survive a loss of power. */
  async #sync(): Promise<void> {
    if (process.platform === "win32") return;
    const folder = await open(this.#folder, "r").catch((fault: unknown) => {
      if (hasCode(fault, "ENOENT")) return undefined;
      throw fault;
    });
    try {
      await folder?.sync();
    } finally {
      await folder?.close();
    }
  }
}
