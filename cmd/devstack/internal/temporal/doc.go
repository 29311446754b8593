// Package temporal runs the real Temporal Server, all its services and its Web
// UI, inside this process, with its state in one SQLite file.
//
// It is a development engine: one history shard, one SQLite connection, no
// authorizer, loopback only. What it does promise is that a workflow the server
// has acknowledged survives kill -9 of the process, because every commit is in
// SQLite's write-ahead log before the server answers. A machine that loses
// power may lose the last moments (synchronous=NORMAL syncs at a checkpoint,
// not at a commit: https://www.sqlite.org/pragma.html#pragma_synchronous).
//
// A data directory belongs to one process at a time; the caller holds the lock.
package temporal
