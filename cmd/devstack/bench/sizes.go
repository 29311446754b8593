package main

import "time"

// sizes are how much of everything is measured.
type sizes struct {
	inFlight           []int         // tried for the floor
	floorTry, floorRun time.Duration // of each, and of the best

	plainRecords int
	backlogs     []int // records; the last is the figure
	sessions     int   // every record from a different one
	groupCommit  time.Duration

	lightFor, steadyFor, warm time.Duration

	burstSessions, burstRecords int // records of each
	burstAfter                  time.Duration
	outage                      time.Duration
}

var full = sizes{
	inFlight: []int{16, 32, 64, 128}, floorTry: 8 * time.Second, floorRun: 40 * time.Second,
	plainRecords: 100_000, backlogs: []int{100_000, 1_000_000}, sessions: 5000, groupCommit: 15 * time.Second,
	lightFor: 60 * time.Second, steadyFor: 60 * time.Second, warm: 5 * time.Second,
	burstSessions: 3000, burstRecords: 30, burstAfter: 25 * time.Second, outage: 30 * time.Second,
}

var quick = sizes{
	inFlight: []int{32, 64}, floorTry: 4 * time.Second, floorRun: 8 * time.Second,
	plainRecords: 40_000, backlogs: []int{100_000}, sessions: 1500, groupCommit: 4 * time.Second,
	lightFor: 15 * time.Second, steadyFor: 20 * time.Second, warm: 4 * time.Second,
	burstSessions: 1000, burstRecords: 30, burstAfter: 12 * time.Second, outage: 8 * time.Second,
}

// tiny is for working on the benchmark.
var tiny = sizes{
	inFlight: []int{32}, floorTry: time.Second, floorRun: 2 * time.Second,
	plainRecords: 3000, backlogs: []int{5000}, sessions: 200, groupCommit: time.Second,
	lightFor: 4 * time.Second, steadyFor: 5 * time.Second, warm: time.Second,
	burstSessions: 150, burstRecords: 10, burstAfter: 4 * time.Second, outage: 3 * time.Second,
}

// What does not change with the size: the load of the reference system.
const (
	backlogSessions = 1000
	lightRate       = 50
	steadyRate      = 900
	burstOver       = 300 // sessions of the steady load under the burst
	mostProbes      = 200 // sessions whose latency is looked at in steady load
	someSnapshots   = 0.1 // of the records, where nothing else is said
)
