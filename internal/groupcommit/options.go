package groupcommit

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// Store takes a group of updates of distinct sessions in one transaction, all
// or none; *store.Store is one.
type Store interface {
	Apply(ctx context.Context, updates []store.Update) error
}

// Options of a Committer.
type Options struct {
	// Store takes the groups. Required.
	Store Store

	// Sessions is how many updates one transaction takes at most. Larger
	// groups cost the database less for each session until some 16, and make
	// every session in them wait for the last one; see BenchmarkGroupCommit.
	// Default 32.
	Sessions int
	// Linger bounds how long an update waits for others while a committer is
	// free. It waits only while others are likely to come in that time: a lone
	// one goes at once. Default 5 ms; below zero: never.
	Linger time.Duration
	// Committers is how many transactions run at a time. One leaves the
	// database idle between two groups; more than its cores make groups
	// smaller and gain nothing. Each takes a connection of the pool.
	// Default 2.
	Committers int

	// MaxSessions and MaxBytes bound what is here, waiting or in a transaction.
	// Callers past either wait for room. Bytes are an estimate from above, of
	// an update's values. Default 1024 sessions, 32 MiB.
	MaxSessions int
	MaxBytes    int64

	// Timeout bounds one transaction, with its retries. What blocks one, such
	// as a lock held by somebody else, blocks all sessions of its group until
	// then. Default 15 s.
	Timeout time.Duration

	// Registerer takes the metrics, rollcall_group_commit_*. Default: none.
	Registerer prometheus.Registerer
}

// Defaults of Options, which the flags of the worker repeat.
const (
	DefaultSessions   = 32
	DefaultLinger     = 5 * time.Millisecond
	DefaultCommitters = 2
)

func (o *Options) validate() error {
	if o.Store == nil {
		return errors.New("group commit: no Store")
	}
	if o.Sessions < 0 || o.Committers < 0 || o.MaxSessions < 0 || o.MaxBytes < 0 || o.Timeout < 0 {
		return errors.New("group commit: a number below zero")
	}
	if o.Sessions == 0 {
		o.Sessions = DefaultSessions
	}
	if o.Linger == 0 {
		o.Linger = DefaultLinger
	}
	if o.Committers == 0 {
		o.Committers = DefaultCommitters
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 1024
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 32 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	return nil
}
