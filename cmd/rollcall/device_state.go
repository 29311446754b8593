package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

const stateHelp = `A device's test state says whether it may be used: available, in_test (somebody holds it until the lease ends), quarantined or maintenance. It does not depend on the connection status. A lease ends by itself. The Temporal Web UI and temporal workflow list --query "TestState='in_test'" show it, because the device's open sessions are told.`

// holderFlag says who holds a device.
type holderFlag struct {
	Holder *string `help:"Who holds it. Default: whoever runs the command." placeholder:"NAME"`
}

func (h holderFlag) name() string {
	if h.Holder == nil {
		return user()
	}
	return *h.Holder
}

// check refuses an empty name too: a script whose variable is not set would hold
// the device as nobody.
func (h holderFlag) check() error {
	if h.Holder != nil && (strings.TrimSpace(*h.Holder) == "" || len(*h.Holder) > store.MaxHolder) {
		return fmt.Errorf("--holder must be a name of 1 to %d bytes", store.MaxHolder)
	}
	return nil
}

// leaseFlag says how long a device is held.
type leaseFlag struct {
	For cli.Days `required:"" help:"How long, from now: 30m, 2h, 3d." placeholder:"DURATION"`
}

func (l leaseFlag) check() error {
	if d := time.Duration(l.For); l.For != 0 && (d < time.Second || d > store.MaxLease) { // 0: not given
		return fmt.Errorf("--for must be from 1s to %dd", store.MaxLease/(24*time.Hour))
	}
	return nil
}

const heldExits = ` Exits 1 when somebody else holds it, 3 when there is no such device.`

// whatToDo says what helps who was refused a change of test state.
func whatToDo(verb string, t store.TestState) string {
	switch {
	case t.State == store.StateAvailable:
		return "rollcall device reserve takes it"
	case t.State != store.StateInTest:
		return "rollcall device set-state makes it available"
	case verb == "reserve":
		return "rollcall device list --available has others; its holder can renew it"
	case verb == "renew":
		return "--holder says who you are"
	}
	return "--force does it all the same"
}

// changeState makes a change of test state, prints it and tells the device's open
// sessions.
func (q *queryFlags) changeState(ctx context.Context, env cli.Env, verb string, f *tellFlags, change func(context.Context, *store.Store) (string, store.TestState, error)) error {
	var open []store.Summary
	err := q.ask(ctx, func(ctx context.Context, db *store.Store) error {
		id, t, err := change(ctx, db)
		if held := (*store.HeldError)(nil); errors.As(err, &held) {
			return fmt.Errorf("%w: %s", err, whatToDo(verb, held.TestState))
		}
		if err != nil {
			return err
		}
		out := struct {
			Device string          `json:"device_id"`
			Test   store.TestState `json:"test"`
		}{id, t}
		open = openSessions(ctx, env, db, id)
		return q.Output.write(env.Stdout, out, func(w *tabwriter.Writer) {
			row(w, "DEVICE", "STATE", "BY", "UNTIL", "REASON")
			row(w, id, t.State, orElse(t.Holder, "-"), orElse(stamp(t.LeaseUntil), "-"), orElse(clip(t.Reason), "-"))
		})
	})
	f.tell(ctx, env, open) // also where printing the change failed
	return err
}

// testStateText is a test state as a cell of a table shows it.
func testStateText(t store.TestState) string {
	if t.State == store.StateInTest {
		return fmt.Sprintf("%s (%s)", t.State, clip(t.Holder))
	}
	return t.State
}

type deviceReserveCmd struct {
	queryFlags `embed:""`
	holderFlag `embed:""`
	leaseFlag  `embed:""`
	tellFlags  `embed:""`
	Device     string `arg:"" help:"Which device."`
	Reason     string `help:"What it is reserved for." placeholder:"TEXT"`
	Offline    bool   `help:"Reserve it though it is not online."`
}

// Help is printed by device reserve --help.
func (*deviceReserveCmd) Help() string {
	return stateHelp + `

When several reserve a device at once, one gets it. The others exit with 1 and are told who holds it and until when. A device that is not online is refused with exit code 1, unless --offline is given; one whose sessions are all closed is always refused. Exits 3 when there is no such device.

` + refHelp + `

Examples:

    rollcall device list --available

    rollcall device reserve living-room-tv --holder ci-1234 --for 2h --reason "nightly"`
}

// Validate is called by kong before anything starts.
func (c *deviceReserveCmd) Validate() error {
	return errors.Join(c.holderFlag.check(), c.leaseFlag.check(), c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run reserves.
func (c *deviceReserveCmd) Run(ctx context.Context, env cli.Env) error {
	return c.changeState(ctx, env, "reserve", &c.tellFlags, func(ctx context.Context, db *store.Store) (string, store.TestState, error) {
		d, err := db.GetDevice(ctx, c.Device)
		if err != nil {
			return "", store.TestState{}, err
		}
		if err := c.checkPresence(d.Sessions[0]); err != nil {
			return "", store.TestState{}, err
		}
		return db.Reserve(ctx, d.Device, c.name(), c.Reason, time.Duration(c.For))
	})
}

// checkPresence refuses a device that nobody can use, by its current session.
func (c *deviceReserveCmd) checkPresence(current store.Summary) error {
	const others = "rollcall device list --available has others"
	switch {
	case current.Closed > 0:
		return fmt.Errorf("reserve: device %s has no open session: the last, on RAE %q, was closed (%q); %s", current.Device, current.RAE, clip(current.Reason), others)
	case current.Status != device.Online && !c.Offline:
		return fmt.Errorf("reserve: device %s is not online but %s on RAE %q: --offline reserves it all the same; %s", current.Device, orElse(current.Status, "of no known status"), current.RAE, others)
	}
	return nil
}

type deviceRenewCmd struct {
	queryFlags `embed:""`
	holderFlag `embed:""`
	leaseFlag  `embed:""`
	tellFlags  `embed:""`
	Device     string `arg:"" help:"Which device."`
}

// Help is printed by device renew --help.
func (*deviceRenewCmd) Help() string {
	return `Sets when the lease of a reserved device ends: --for from now, which may be sooner than before. A lease that has ended cannot be renewed: reserve the device again.` + heldExits + `

` + refHelp + `

Example:

    rollcall device renew living-room-tv --holder ci-1234 --for 1h`
}

// Validate is called by kong before anything starts.
func (c *deviceRenewCmd) Validate() error {
	return errors.Join(c.holderFlag.check(), c.leaseFlag.check(), c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run renews.
func (c *deviceRenewCmd) Run(ctx context.Context, env cli.Env) error {
	return c.changeState(ctx, env, "renew", &c.tellFlags, func(ctx context.Context, db *store.Store) (string, store.TestState, error) {
		return db.Renew(ctx, c.Device, c.name(), time.Duration(c.For))
	})
}

type deviceReleaseCmd struct {
	queryFlags `embed:""`
	holderFlag `embed:""`
	tellFlags  `embed:""`
	Device     string `arg:"" help:"Which device."`
	Force      bool   `help:"Release it even if somebody else holds it."`
}

// Help is printed by device release --help.
func (*deviceReleaseCmd) Help() string {
	return `Makes a reserved device available again, before its lease ends.` + heldExits + `

` + refHelp + `

Example:

    rollcall device release living-room-tv --holder ci-1234`
}

// Validate is called by kong before anything starts.
func (c *deviceReleaseCmd) Validate() error {
	return errors.Join(c.holderFlag.check(), c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run releases.
func (c *deviceReleaseCmd) Run(ctx context.Context, env cli.Env) error {
	return c.changeState(ctx, env, "release", &c.tellFlags, func(ctx context.Context, db *store.Store) (string, store.TestState, error) {
		return db.Release(ctx, c.Device, c.name(), c.Force)
	})
}

type deviceSetStateCmd struct {
	queryFlags `embed:""`
	byFlag     `embed:""`
	tellFlags  `embed:""`
	Device     string `arg:"" help:"Which device."`
	State      string `arg:"" enum:"available,quarantined,maintenance" help:"${enum}."`
	Reason     string `help:"Why the state is set." placeholder:"TEXT"`
	Force      bool   `help:"Set the state even if somebody holds the device; the reservation ends."`
}

// Help is printed by device set-state --help.
func (*deviceSetStateCmd) Help() string {
	return stateHelp + `

Quarantined and maintenance last until somebody sets available again. A reserved device stays with its holder unless --force is given.` + heldExits + `

` + refHelp + `

Examples:

    rollcall device set-state living-room-tv quarantined --reason "loses HDMI after an hour"

    rollcall device set-state living-room-tv available`
}

// Validate is called by kong before anything starts.
func (c *deviceSetStateCmd) Validate() error {
	return errors.Join(c.queryFlags.Validate(), c.tellFlags.validate())
}

// Run sets.
func (c *deviceSetStateCmd) Run(ctx context.Context, env cli.Env) error {
	return c.changeState(ctx, env, "set-state", &c.tellFlags, func(ctx context.Context, db *store.Store) (string, store.TestState, error) {
		return db.SetTestState(ctx, c.Device, c.State, c.name(), c.Reason, c.Force)
	})
}
