// Package rollout moves running sessions from one worker version to the next,
// and proves that it lost none of their events on the way.
//
// Sessions are pinned to the version of the Worker Deployment that they run on.
// One that has a workflow task sees that another version is meant for it, and
// continues as new there; one that is idle has none, and is nudged. So a roll is:
// ramp to the new version and watch, make it current, nudge whoever stays behind,
// wait until the old version is drained. Each step may be repeated: a roll that
// was killed is begun again and goes on.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/rollcall-platform/rollcall/internal/retry"
	"github.com/rollcall-platform/rollcall/workers/session"
	"github.com/rollcall-platform/rollcall/workflows"
)

// Options of Roll.
type Options struct {
	// Client reaches Temporal. Required.
	Client client.Client
	// Namespace is the client's. Default "default".
	Namespace string
	// TaskQueue of the sessions. Default workflows.TaskQueue.
	TaskQueue string
	// To is the version that the sessions are to run on. Required. Its
	// workers must be running, or start within PollerTimeout.
	To session.Version

	// Ramp are percentages of the sessions, rising, that are meant for the new
	// version before all are. Each is held for Hold, and given up when
	// sessions fail on it. Busy and new sessions take part; idle ones wait.
	Ramp []float64
	Hold time.Duration
	// PollerTimeout bounds the wait for workers of the new version. Default 2
	// min.
	PollerTimeout time.Duration
	// DrainTimeout bounds moving the sessions, and then waiting for the server
	// to say that the old version is drained. Default 10 min.
	DrainTimeout time.Duration
	// NudgeRate is how many idle sessions a second are told to move. Each
	// costs two workflow tasks and a new run. Default 100.
	NudgeRate float64

	// Ledger proves that no event was lost. Nil: nothing is proved.
	Ledger *Ledger
	// Say is told of progress. Default: nobody is.
	Say func(format string, args ...any)
}

func (o *Options) validate() error {
	if o.Client == nil {
		return errors.New("roll: no Client")
	}
	if o.To == (session.Version{}) {
		return errors.New("roll: no version to roll to")
	}
	if err := o.To.Check(); err != nil {
		return fmt.Errorf("roll: %w", err)
	}
	for i, percent := range o.Ramp {
		if percent <= 0 || percent > 100 || i > 0 && percent <= o.Ramp[i-1] {
			return fmt.Errorf("roll: ramp %v: percentages above 0, to 100, each more than the one before", o.Ramp)
		}
	}
	if o.Hold < 0 || o.PollerTimeout < 0 || o.DrainTimeout < 0 || o.NudgeRate < 0 {
		return errors.New("roll: a number below zero")
	}
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&o.PollerTimeout, 2*time.Minute)
	set(&o.DrainTimeout, 10*time.Minute)
	if o.NudgeRate == 0 {
		o.NudgeRate = 100
	}
	if o.Namespace == "" {
		o.Namespace = client.DefaultNamespace
	}
	if o.TaskQueue == "" {
		o.TaskQueue = workflows.TaskQueue
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	return nil
}

// roll is one Roll.
type roll struct {
	Options
	fleet
	handle  client.WorkerDeploymentHandle
	report  RollReport
	failing []string // sessions that failed their workflow tasks before
}

// Roll moves the sessions. The report says how far it came, also when there is
// an error. Cancelling ctx leaves the routing as it is.
func Roll(ctx context.Context, o Options) (RollReport, error) {
	if err := o.validate(); err != nil {
		return RollReport{}, err
	}
	r := &roll{
		Options: o, fleet: newFleet(o.Client, o.Namespace, o.TaskQueue),
		handle: o.Client.WorkerDeploymentClient().GetHandle(o.To.Deployment),
		report: RollReport{Deployment: o.To.Deployment, To: o.To.BuildID, Began: time.Now().UTC()},
	}
	err := r.run(ctx)
	r.report.TookSeconds = time.Since(r.report.Began).Seconds()
	if err != nil {
		r.report.Complete, r.report.Error = false, err.Error()
	}
	return r.report, err
}

func (r *roll) run(ctx context.Context) error {
	if err := r.await(ctx); err != nil {
		return err
	}
	if r.Ledger != nil {
		if err := r.Ledger.begin(ctx); err != nil {
			return err
		}
	}
	before, err := r.list(ctx, r.elsewhere(r.To))
	if err != nil {
		return err
	}
	r.Say("%d sessions run on other versions than %s", len(before), r.To)
	if r.failing, err = r.problems(ctx); err != nil {
		return err
	}
	if err := r.route(ctx); err != nil {
		return err
	}
	deadline := time.Now().Add(r.DrainTimeout)
	pinned, err := r.move(ctx, before, deadline)
	if err != nil {
		return err
	}
	if err := r.count(ctx, before, pinned); err != nil {
		return err
	}
	if r.Ledger != nil {
		proof, err := r.Ledger.awaitApplied(ctx)
		if err != nil {
			return err
		}
		r.report.Proof = &proof
	}
	if err := r.drained(ctx, deadline); err != nil {
		return err
	}
	return r.verdict()
}

// verdict is an error for whatever keeps the roll from being complete.
func (r *roll) verdict() error {
	s := r.report.Sessions
	switch p := r.report.Proof; {
	case s.StillPinned > 0:
		return fmt.Errorf("%d sessions did not move within %s: a worker of the version that they are pinned to must be running to hand them over (rollcall deployment status); then roll again", s.StillPinned, r.DrainTimeout)
	case p != nil && p.Lost > 0:
		return fmt.Errorf("%d events of %d sessions are in Kafka and not in the database: see lost_sessions in the report, then rollcall quarantine list and the dead letters", p.Lost, p.SessionsWithLoss)
	case len(r.report.Draining) > 0:
		return fmt.Errorf("the server still counts version %s as draining after %s: keep its workers, and roll again to wait on", r.report.Draining, r.DrainTimeout)
	}
	r.report.Complete = true
	return nil
}

// await waits until workers of the new version take tasks of the queue.
func (r *roll) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.PollerTimeout,
		fmt.Errorf("no worker of version %s takes tasks from %s after %s: start one with --deployment %s --build-id %s", r.To, r.TaskQueue, r.PollerTimeout, r.To.Deployment, r.To.BuildID))
	defer cancel()
	for said := false; ; said = true {
		n, err := r.pollers(ctx, r.To)
		if err == nil && n > 0 {
			// Routing is per deployment: the server must know the version there.
			if _, err = r.handle.DescribeVersion(ctx, client.WorkerDeploymentDescribeVersionOptions{BuildID: r.To.BuildID}); err == nil {
				return nil
			}
		}
		if !said {
			r.Say("waiting for workers of version %s", r.To)
		}
		if retry.Sleep(ctx, 500*time.Millisecond) != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// route ramps to the new version and makes it current.
func (r *roll) route(ctx context.Context) error {
	d, err := r.handle.Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	if err != nil {
		return fmt.Errorf("describe deployment %s: %w", r.To.Deployment, err)
	}
	if current := d.Info.RoutingConfig.CurrentVersion; current != nil {
		r.report.From = current.BuildID
	}
	if r.report.From == r.To.BuildID {
		r.report.From = ""
		r.Say("%s is current already", r.To)
		return nil
	}
	token := d.ConflictToken
	for _, percent := range r.Ramp {
		token, err = r.change(ctx, func() ([]byte, error) {
			done, err := r.handle.SetRampingVersion(ctx, client.WorkerDeploymentSetRampingVersionOptions{BuildID: r.To.BuildID, Percentage: float32(percent), ConflictToken: token})
			return done.ConflictToken, err
		}, func(now client.WorkerDeploymentRoutingConfig) bool {
			return now.RampingVersion != nil && now.RampingVersion.BuildID == r.To.BuildID && now.RampingVersionPercentage == float32(percent)
		})
		if err != nil {
			return fmt.Errorf("ramp %s to %g %%: %w", r.To, percent, err)
		}
		r.report.Ramped = percent
		r.Say("%s is meant for %g %% of the sessions; watching for %s", r.To, percent, r.Hold)
		if err := r.watch(ctx); err != nil {
			return r.abort(ctx, err)
		}
	}
	_, err = r.change(ctx, func() ([]byte, error) {
		done, err := r.handle.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: r.To.BuildID, ConflictToken: token})
		return done.ConflictToken, err
	}, func(now client.WorkerDeploymentRoutingConfig) bool {
		return now.CurrentVersion != nil && now.CurrentVersion.BuildID == r.To.BuildID
	})
	if err != nil {
		return fmt.Errorf("make %s current: %w", r.To, err)
	}
	r.Say("%s is current", r.To)
	return nil
}

// errUnhealthy is why a roll is given up.
var errUnhealthy = errors.New("the new version does not do")

// healthy looks whether sessions fail their workflow tasks that did not before
// the roll, and whether the new version still has workers.
func (r *roll) healthy(ctx context.Context) error {
	failing, err := r.problems(ctx)
	if err != nil {
		return err
	}
	stuck, err := r.stuck(ctx, r.To)
	if err != nil {
		return err
	}
	failing = slices.DeleteFunc(append(failing, stuck...), func(id string) bool { return slices.Contains(r.failing, id) })
	if len(failing) > 0 {
		return fmt.Errorf("%w: workflow tasks fail in %d sessions that were looked at; temporal workflow show --workflow-id %s tells why", errUnhealthy, len(failing), failing[0])
	}
	n, err := r.pollers(ctx, r.To)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: its workers have stopped", errUnhealthy)
	}
	return nil
}

// watch holds a step of the ramp.
func (r *roll) watch(ctx context.Context) error {
	for end := time.Now().Add(r.Hold); ; {
		if err := r.healthy(ctx); err != nil {
			return err
		}
		if time.Now().After(end) {
			return nil
		}
		if err := retry.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// abort takes the ramp back where the new version is at fault.
func (r *roll) abort(ctx context.Context, why error) error {
	if !errors.Is(why, errUnhealthy) {
		return why
	}
	_, err := r.handle.SetRampingVersion(ctx, client.WorkerDeploymentSetRampingVersionOptions{BuildID: r.To.BuildID, Percentage: 0})
	if err != nil {
		return errors.Join(why, fmt.Errorf("and the ramp could not be taken back, it is still %g %%: %w", r.report.Ramped, err))
	}
	r.report.Aborted = true
	return fmt.Errorf("%w; the ramp is back at 0 %%, and the sessions that moved go back with their next event: keep the workers of both versions until rollcall deployment status shows none", why)
}

// move nudges the sessions that are not on the new version until none is left,
// or the time is over; then it returns those that are.
func (r *roll) move(ctx context.Context, before []string, deadline time.Time) ([]string, error) {
	var none bool
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		left, err := r.list(ctx, r.elsewhere(r.To))
		if err == nil && len(left) == 0 && none { // twice: what runs is seen with a delay
			var moved []string
			if moved, err = r.list(ctx, r.on(r.To)); err == nil {
				left, err = r.unseen(ctx, before, moved)
			}
			if err == nil && len(left) == 0 {
				return nil, nil
			}
		}
		switch {
		case err != nil:
			return nil, err
		case time.Now().After(deadline):
			return left, nil
		case len(left) > 0:
			if err := r.healthy(ctx); err != nil {
				return nil, fmt.Errorf("%w; %s is current, and %d sessions are not on it: mend it, or go back: roll to the version before", err, r.To, len(left))
			}
			r.Say("%d sessions are not on %s yet: nudging them", len(left), r.To)
			n, err := r.nudge(ctx, left, r.NudgeRate, deadline)
			r.report.Nudges += n
			if err != nil {
				return nil, err
			}
		}
		none = len(left) == 0
		if err := retry.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// drained waits until the server counts no other version as draining. It looks
// only every few minutes.
func (r *roll) drained(ctx context.Context, deadline time.Time) error {
	for said := ""; ; {
		d, err := r.handle.Describe(ctx, client.WorkerDeploymentDescribeOptions{})
		if err != nil {
			return fmt.Errorf("describe deployment %s: %w", r.To.Deployment, err)
		}
		r.report.Draining = nil
		for _, v := range d.Info.VersionSummaries {
			id := v.Version.BuildID
			if id == r.To.BuildID {
				continue
			}
			if v.DrainageStatus == client.WorkerDeploymentVersionDrainageStatusDraining ||
				id == r.report.From && v.DrainageStatus != client.WorkerDeploymentVersionDrainageStatusDrained {
				r.report.Draining = append(r.report.Draining, id)
			}
		}
		r.report.Drained = len(r.report.Draining) == 0
		if r.report.Drained || time.Now().After(deadline) {
			return nil
		}
		if now := fmt.Sprint(r.report.Draining); now != said {
			r.Say("waiting until the server counts %s as drained: it looks every few minutes", now)
			said = now
		}
		if err := retry.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}
