package workflows

import "slices"

// AppliedByBuild is how many of the session's events a build of the worker has
// applied. It is as exact as the session's counters: it changes with them, when
// the database has an apply.
type AppliedByBuild struct {
	ID     string `json:"id"` // of the worker deployment's version; of an unversioned worker the checksum of its binary
	Events int64  `json:"events"`
}

// maxBuilds bounds the builds a session remembers.
const maxBuilds = 4

// countForBuild counts events for the build that applied them. A build that comes
// back after others continues its count.
func (c *CarriedState) countForBuild(id string, events int64) {
	if id == "" || events == 0 {
		return
	}
	b := AppliedByBuild{ID: id, Events: events}
	if i := slices.IndexFunc(c.Builds, func(b AppliedByBuild) bool { return b.ID == id }); i >= 0 {
		b.Events += c.Builds[i].Events
		c.Builds = slices.Concat(c.Builds[:i], c.Builds[i+1:])
	}
	c.Builds = append(c.Builds, b)
	if n := len(c.Builds) - maxBuilds; n > 0 {
		c.Builds = c.Builds[n:]
	}
}
