package main

import "time"

// sizes are how much of everything is measured.
type sizes struct {
	inFlight           []int         // tried for the floor
	floorTry, floorRun time.Duration // of each, and of the best

	plainRecords int
	backlogs     []backlog // the last is the figure
	sessions     int       // every record from a different one
	groupCommit  time.Duration

	lightFor, steadyFor, warm time.Duration

	burstSessions, burstRecords int // records of each
	burstAfter                  time.Duration
	outage                      time.Duration
}

// backlog is how many records of how many sessions wait. What folding makes of
// it depends on the records of each session, so the smaller one has as many.
type backlog struct{ records, sessions int }

var full = sizes{
	inFlight: []int{16, 32, 64, 128}, floorTry: 8 * time.Second, floorRun: 40 * time.Second,
	plainRecords: 100_000, backlogs: []backlog{{100_000, 1000}, {1_000_000, 1000}}, sessions: 5000, groupCommit: 15 * time.Second,
	lightFor: 60 * time.Second, steadyFor: 60 * time.Second, warm: 5 * time.Second,
	burstSessions: 3000, burstRecords: 30, burstAfter: 25 * time.Second, outage: 30 * time.Second,
}

var quick = sizes{
	inFlight: []int{32, 64}, floorTry: 3 * time.Second, floorRun: 8 * time.Second,
	plainRecords: 40_000, backlogs: []backlog{{200_000, 200}}, sessions: 1500, groupCommit: 4 * time.Second,
	lightFor: 15 * time.Second, steadyFor: 15 * time.Second, warm: 3 * time.Second,
	burstSessions: 500, burstRecords: 30, burstAfter: 8 * time.Second, outage: 8 * time.Second,
}

// tiny is for working on the benchmark.
var tiny = sizes{
	inFlight: []int{32}, floorTry: time.Second, floorRun: 2 * time.Second,
	plainRecords: 3000, backlogs: []backlog{{10_000, 50}}, sessions: 200, groupCommit: time.Second,
	lightFor: 4 * time.Second, steadyFor: 5 * time.Second, warm: time.Second,
	burstSessions: 150, burstRecords: 10, burstAfter: 4 * time.Second, outage: 3 * time.Second,
}

// What does not change with the size: the load of the reference system.
const (
	sessionsMany  = 1000
	lightRate     = 50
	steadyRate    = 900
	burstOver     = 300 // sessions of the steady load under the burst
	mostProbes    = 200 // sessions whose latency is looked at in steady load
	steadyLook    = 20 * time.Millisecond
	someSnapshots = 0.1 // of the records, where nothing else is said
)
