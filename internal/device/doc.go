// Package device is the vocabulary that the edge and the cloud share: topics,
// events, the fold that merges events, and the state of a device session.
//
// Everything here is a pure value or a pure function. No clock, no I/O, no
// goroutine: the same code runs in the Local Registry, in the poller, inside a
// deterministic workflow and in the checker that compares them.
//
// Order is the sequence number and nothing else. A session's events carry a
// gap-free seq from 1; times are kept for people and order nothing.
package device
