package workflows

import "slices"

// AppliedByBuild is a worker's build and how many events of the session it has applied.
// It is as exact as the session's counters: it changes with them, when the
// database has taken an apply.
type AppliedByBuild struct {
	ID     string `json:"id"` // of the worker deployment's version; of an unversioned worker the checksum of its binary
	Events int64  `json:"events"`
}

// maxBuilds bounds the builds a session remembers.
const maxBuilds = 4

// credit counts events for the build that applied them. A build that comes back
// after others goes on with its count.
func (c *CarriedState) credit(id string, events int64) {
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
