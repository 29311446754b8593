package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/workers/session"
)

// ErrNoDeployment is wrapped where the server knows of no worker of the
// deployment.
var ErrNoDeployment = errors.New("no such deployment")

// Status of a Worker Deployment.
type Status struct {
	Deployment  string          `json:"deployment"`
	Current     string          `json:"current"`           // build; empty: new sessions go to unversioned workers
	Ramping     string          `json:"ramping,omitempty"` // build
	RampPercent float64         `json:"ramp_percent,omitempty"`
	Versions    []VersionStatus `json:"versions"` // newest first
	Unversioned VersionStatus   `json:"unversioned"`
	Failing     int             `json:"failing"` // sessions whose workflow tasks fail again and again
}

// VersionStatus is a version in it.
type VersionStatus struct {
	BuildID string    `json:"build_id,omitempty"`
	Created time.Time `json:"created,omitzero"`
	State   string    `json:"state,omitempty"` // current, ramping, draining, drained or inactive
	// Sessions run on it, as the server's visibility shows them.
	Sessions int64 `json:"sessions"`
	// Workers poll for its workflow tasks.
	Workers int `json:"workers"`
}

// Look describes a deployment.
func Look(ctx context.Context, c client.Client, namespace, taskQueue, deployment string) (Status, error) {
	out := Status{Deployment: deployment}
	f := newFleet(c, namespace, taskQueue)
	d, err := c.WorkerDeploymentClient().GetHandle(deployment).Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return out, fmt.Errorf("%w: %s: start a worker with --deployment %[2]s --build-id ID", ErrNoDeployment, deployment)
	}
	if err != nil {
		return out, fmt.Errorf("describe deployment %s: %w", deployment, err)
	}
	routing := d.Info.RoutingConfig
	if v := routing.CurrentVersion; v != nil {
		out.Current = v.BuildID
	}
	if v := routing.RampingVersion; v != nil {
		out.Ramping, out.RampPercent = v.BuildID, float64(routing.RampingVersionPercentage)
	}
	for _, v := range d.Info.VersionSummaries {
		s := VersionStatus{BuildID: v.Version.BuildID, Created: v.CreateTime.UTC(), State: state(v, out)}
		version := session.Version{Deployment: deployment, BuildID: s.BuildID}
		if s.Sessions, err = f.number(ctx, f.on(version)); err != nil {
			return out, err
		}
		if s.Workers, err = f.pollers(ctx, version); err != nil {
			return out, err
		}
		out.Versions = append(out.Versions, s)
	}
	slices.SortFunc(out.Versions, func(a, b VersionStatus) int { return b.Created.Compare(a.Created) })
	if out.Unversioned.Sessions, err = f.number(ctx, f.running()+" AND TemporalWorkerDeploymentVersion IS NULL"); err != nil {
		return out, err
	}
	if out.Unversioned.Workers, err = f.pollers(ctx, session.Version{}); err != nil {
		return out, err
	}
	failing, err := f.problems(ctx)
	out.Failing = len(failing)
	return out, err
}

func state(v client.WorkerDeploymentVersionSummary, s Status) string {
	switch {
	case v.Version.BuildID == s.Current:
		return "current"
	case v.Version.BuildID == s.Ramping:
		return "ramping"
	case v.DrainageStatus == client.WorkerDeploymentVersionDrainageStatusDraining:
		return "draining"
	case v.DrainageStatus == client.WorkerDeploymentVersionDrainageStatusDrained:
		return "drained"
	}
	return "inactive"
}
