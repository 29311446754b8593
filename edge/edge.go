package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/edge/command"
	"github.com/rollcall-platform/rollcall/edge/probe"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Edge is one running Local Registry.
type Edge struct {
	o        Options
	registry *registry.Registry
	commands *command.Handler
	uplink   *uplink.Uplink
	probe    *probe.Probe // nil in a replay
	intake   *intake
	ended    chan struct{} // closed when the replay has ended
	closing  sync.Once
}

// New opens the registry and the source, so that what is wrong with them is an
// error before anything runs. An Edge that will not Run must be closed.
func New(o Options) (*Edge, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	e := &Edge{o: o, ended: make(chan struct{})}
	ro := registry.Options{
		Path: filepath.Join(o.DataDir, DatabaseFile), RAE: o.RAE, Logger: o.Logger, Registerer: o.Registerer,
		SnapshotInterval: o.SnapshotInterval, ForgetAfter: o.ForgetAfter, MaxDevices: o.MaxDevices, MaxOutboxBytes: o.MaxOutboxBytes,
	}
	if o.Interface != "" {
		ro.OfflineAfter = o.OfflineAfter
	}
	var err error
	if e.registry, err = registry.Open(ro); err != nil {
		return nil, err
	}
	if err := e.build(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Edge) build() (err error) {
	o := &e.o
	e.commands, err = command.New(command.Options{RAE: o.RAE, Registry: e.registry, Logger: o.Logger, Registerer: o.Registerer})
	if err != nil {
		return err
	}
	e.uplink, err = uplink.New(uplink.Options{
		Broker: o.Broker, RAE: o.RAE, Outbox: e.registry, Commands: e.commands.Handle, Logger: o.Logger, Registerer: o.Registerer,
		Window: o.Window, Drain: o.Drain,
	})
	if err != nil {
		return err
	}
	if e.intake, err = newIntake(o, e.registry); err != nil {
		return err
	}
	if o.Interface != "" && o.ProbeInterval > 0 {
		e.probe, err = probe.New(probe.Options{
			Prober: e.intake, Addresses: e.addresses, Logger: o.Logger, Registerer: o.Registerer, Interval: o.ProbeInterval,
		})
	}
	return err
}

// Close releases what New opened. Run does it by itself.
func (e *Edge) Close() (err error) {
	e.closing.Do(func() {
		if e.intake != nil {
			e.intake.close()
		}
		if e.commands != nil {
			e.commands.Close()
		}
		err = e.registry.Close()
	})
	return err
}

// Run reads the source, keeps the records and publishes their events until ctx
// is cancelled, or, with Options.ExitAtEnd, until the replay has ended and the
// outbox is empty. It then stops in order: source, records, uplink with its
// bounded drain, registry. A capture that breaks off is an error only with
// ExitAtEnd; else it is logged, and Ready tells it.
func (e *Edge) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, e.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	publishing, stopPublishing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPublishing()

	var sinks errgroup.Group // they outlive the source
	sinks.Go(func() error { return e.uplink.Run(publishing) })
	sinks.Go(func() error { return e.serveControl(publishing) })

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := e.intake.run(running)
		if running.Err() == nil {
			close(e.ended)
			if e.o.ExitAtEnd {
				e.awaitEmpty(running)
				stop()
				return err
			}
		}
		return nil
	})
	group.Go(func() error { return e.registry.Run(running) })
	if e.probe != nil {
		group.Go(func() error { return e.probe.Run(running) })
	}
	err = group.Wait()
	stopPublishing()
	return errors.Join(err, sinks.Wait())
}

// awaitEmpty waits until the broker has acknowledged all events.
func (e *Edge) awaitEmpty(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, _ := e.registry.Pending(); n == 0 || ctx.Err() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// Ready returns nil when frames are read, records are written and events flow.
func (e *Edge) Ready() error {
	return errors.Join(e.intake.ready(), e.registry.Ready(), e.uplink.Ready())
}

// Checks are the parts of Ready, by what each needs: the source of frames, the
// file of the records, the MQTT broker.
func (e *Edge) Checks() map[string]func() error {
	return map[string]func() error{"source": e.intake.ready, "registry": e.registry.Ready, "mqtt": e.uplink.Ready}
}

// Devices returns copies of the records, sorted by MAC.
func (e *Edge) Devices() []registry.Device { return e.registry.Devices() }

// Pending returns how many events wait for the broker, and their bytes.
func (e *Edge) Pending() (events int, bytes int64) { return e.registry.Pending() }

// Position is how far the capture was replayed.
func (e *Edge) Position() registry.Position { return e.registry.Position() }

// Ended is closed when the replay has ended and its last change is on disk. It
// may not be published yet: see Pending. On an interface it never is.
func (e *Edge) Ended() <-chan struct{} { return e.ended }

// Broken is why frames are no longer read though there may be more, or nil. A
// capture that was cut off is broken when its whole frames were read.
func (e *Edge) Broken() error { return e.intake.ready() }

// Forget closes the session of a device and removes its record.
func (e *Edge) Forget(ctx context.Context, mac, reason string) error {
	return e.registry.Forget(ctx, mac, reason)
}

// addresses are the IPv4 addresses of all devices.
func (e *Edge) addresses() []netip.Addr {
	var out []netip.Addr
	for _, d := range e.registry.Devices() {
		var addr netip.Addr
		if a, ok := d.Attributes[device.AttrIPv4]; ok && unmarshal(a.Value, &addr) == nil {
			out = append(out, addr)
		}
	}
	return out
}
