// Package command does what the cloud asks of a RAE's Local Registry and
// answers it.
//
// A command comes at least once, is done at most once and is answered each time
// it comes: what it asks, its answer and the memory that it was done are one
// transaction of the registry, and the answer leaves by the same outbox as the
// events. The memory ends when the command expires.
package command
