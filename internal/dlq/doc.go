// Package dlq reads a dead-letter topic and resolves what is in it: it replays a
// letter, which puts the original record back where it came from, or drops it.
//
// Kafka cannot delete one record. What has become of a letter is therefore
// written behind it, as a mark: a record of the same partition of the same topic,
// with the header HeaderMark and, in its value, the offsets it speaks of. A mark
// is younger than its letters, so that retention takes them first and never
// the mark alone; no second topic has to be created, kept and guarded.
//
// A letter is replayed first, with acks=all, and marked when that is
// acknowledged. Between the two a crash leaves a replayed letter without a
// mark: it can come a second time, never be lost. A second time changes nothing
// in the tables (invariant 5 of docs/architecture.md).
//
// Memory is bounded whatever the topic holds: one bit for each offset that a
// mark may speak of (125 KB for a million letters), and one fetch.
package dlq
