// Package command does what the cloud asks of a RAE's Local Registry and
// answers it. The actions are those of device.Actions; handlers.go has what each
// of them does.
//
// A command is delivered at least once, done at most once, and answered at each
// delivery. What it changes, its answer and the memory that it was done are one
// transaction of the registry, and the answer leaves by the same outbox as the
// events. The memory ends when the command expires. A command whose action this
// edge does not know is answered as well: its outcome is unsupported.
package command
