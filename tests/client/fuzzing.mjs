// What both fuzzers share: random numbers from a seed, a world whose sockets are links of the fuzzer, and the run over all seeds.

import assert from "node:assert/strict";

/** A random number in [0, 1) from a seed: mulberry32. */
export function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Links, and the accidents that happen to them while `bad`. */
export class World {
  bad = true;
  links = new Set();
  counts = {};

  constructor(random, Link) {
    this.random = random;
    this.Link = Link;
  }

  chance(probability) {
    return this.bad && this.random() < probability;
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  count(what) {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  WebSocket() {
    const world = this;
    return class {
      constructor() {
        this.link = new world.Link(world, this);
        world.links.add(this.link);
      }
      send(text) {
        this.link.receive(JSON.parse(text));
      }
      close() {
        world.links.delete(this.link);
      }
    };
  }
}

/** Runs each seed; all kinds of `events` must have happened in one of them. */
export async function runSeeds(t, runs, run, events) {
  const only = process.env.FUZZ_SEED;
  const total = {};
  const last = only ? Number(only) : Number(process.env.FUZZ_RUNS ?? runs);
  for (let seed = only ? Number(only) : 1; seed <= last; seed++) {
    let counts;
    try {
      counts = await run(seed);
    } catch (error) {
      throw new Error(`FUZZ_SEED=${seed}: ${error.message}`, { cause: error });
    }
    for (const [what, count] of Object.entries(counts)) total[what] = (total[what] ?? 0) + count;
  }
  t.diagnostic(JSON.stringify(total));
  if (!only) for (const what of events) assert.ok(total[what], what);
}
