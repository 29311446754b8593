package edge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/retry"
)

const (
	// maxSteps bounds what is read and not written, and what one
	// transaction takes.
	maxSteps = 256
	// fingerprintBytes of a capture's begin, with its size, identify it.
	fingerprintBytes = 1 << 20
)

var retryBackoff = retry.Backoff{First: 100 * time.Millisecond, Max: 10 * time.Second}

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// intake reads frames, parses them and gives the registry what they say. One
// goroutine reads and parses, one writes; between them are at most maxSteps
// steps, so that a slow disk slows a replay down, and live leaves frames to the
// kernel's buffer, which counts what it drops.
type intake struct {
	o        *Options
	registry *registry.Registry
	stats    *discovery.Stats
	parser   *discovery.Parser
	resume   registry.Position // zero live

	mu     sync.Mutex
	source discovery.Capture
	err    error // why frames are not read
}

// step is a registry.Step, or a device to forget.
type step struct {
	registry.Step
	router string // MAC that turned out to be the router's
}

func newIntake(o *Options, r *registry.Registry) (*intake, error) {
	in := &intake{o: o, registry: r}
	var err error
	if in.stats, err = discovery.NewStats(o.Registerer); err != nil {
		return nil, err
	}
	if o.Interface != "" {
		return in, in.openLive()
	}
	return in, in.openFile()
}

func (in *intake) openLive() error {
	source, err := discovery.OpenLive(discovery.LiveOptions{Interface: in.o.Interface, Stats: in.stats, Logger: in.o.Logger})
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.source, in.err = source, nil
	in.parser = discovery.NewParser(discovery.Options{
		LAN: in.lan(source.LAN()), Stats: in.stats, Logger: in.o.Logger,
		HasDHCPName: func(mac string) bool { return in.registry.Value(mac, device.AttrDHCPHostname) != nil },
	})
	return nil
}

// openFile opens the capture behind the last frame that is on disk. The parser
// gets the frames before it as well, and so goes on as if nothing had happened.
func (in *intake) openFile() error {
	id, err := fingerprint(in.o.Capture)
	if err != nil {
		return err
	}
	in.resume = registry.Position{Source: id}
	if at := in.registry.Position(); at.Source == id && !in.o.Rewind {
		in.resume = at
	} else if at.Source != "" && !in.o.Rewind {
		in.o.Logger.Info("another capture than the one that was replayed last: from its first frame", "capture", in.o.Capture)
	}
	lan := in.lan(discovery.LAN{})
	if lan, err = discovery.LearnLAN(context.Background(), in.o.Capture, lan, 0); err != nil {
		return err
	}
	source, err := discovery.OpenFile(discovery.FileOptions{
		Path: in.o.Capture, Speed: in.o.Speed, MaxGap: in.o.MaxGap, StartAt: in.resume.Frame,
		Skipped: func(f discovery.Frame) { in.parser.Parse(f) },
	})
	if err != nil {
		return err
	}
	in.source = source
	in.parser = discovery.NewParser(discovery.Options{LAN: lan, Learn: true, Stats: in.stats, Logger: in.o.Logger})
	return nil
}

// lan is base with what the options say.
func (in *intake) lan(base discovery.LAN) discovery.LAN {
	if len(in.o.LAN) > 0 {
		base.Prefixes = in.o.LAN
	}
	if base.RouterMACs == nil {
		base.RouterMACs = map[string]struct{}{}
	}
	for _, mac := range in.o.RouterMACs {
		base.RouterMACs[mac] = struct{}{}
	}
	return base
}

// fingerprint identifies a capture by what is in it, not by its name.
func fingerprint(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open capture: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("capture: %w", err)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, fingerprintBytes); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read capture %s: %w", path, err)
	}
	return fmt.Sprintf("%d-%s", info.Size(), hex.EncodeToString(h.Sum(nil)[:16])), nil
}

func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.source != nil {
		_ = in.source.Close()
	}
	if in.o.Registerer != nil && in.stats != nil {
		in.o.Registerer.Unregister(in.stats)
	}
}

func (in *intake) ready() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

func (in *intake) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.err = err
}

// SendARP implements discovery.Prober on the live capture of the moment.
func (in *intake) SendARP(addr netip.Addr) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if p, ok := in.source.(discovery.Prober); ok && in.err == nil {
		return p.SendARP(addr)
	}
	return errors.New("interface is not being read")
}

// run reads and writes until the source has ended and all of it is on disk, or
// ctx is done. The error of a capture that breaks off is returned, logged and
// kept for ready.
func (in *intake) run(ctx context.Context) error {
	steps := make(chan step, maxSteps)
	var readErr error
	go func() {
		defer close(steps)
		readErr = in.read(ctx, steps)
	}()
	in.write(ctx, steps)
	if readErr != nil && ctx.Err() == nil {
		in.fail(readErr)
		in.o.Logger.Error("capture cannot be read further; what came before is recorded", "capture", in.o.Capture, "err", readErr)
		return readErr
	}
	return nil
}

// read is the reading goroutine.
func (in *intake) read(ctx context.Context, steps chan<- step) error {
	if in.o.Interface != "" {
		in.readLive(ctx, steps)
		return nil
	}
	return in.readFile(ctx, steps)
}

func (in *intake) readFile(ctx context.Context, steps chan<- step) error {
	if in.resume.Ended {
		in.o.Logger.Info("capture was replayed to its end before; nothing to replay (--rewind starts again)", "capture", in.o.Capture, "frames", in.resume.Frame)
		return nil
	}
	if in.resume.Frame > 0 {
		in.o.Logger.Info("replay goes on behind the last frame on disk", "capture", in.o.Capture, "frame", in.resume.Frame)
	}
	at, known := in.resume, map[string]struct{}{}
	for {
		f, err := in.source.Next(ctx)
		var s step
		if err == nil {
			at.Frame = f.Index
			s.Observations = in.parser.Parse(f)
		}
		// Also those that were learned from skipped frames.
		for mac := range in.parser.LAN().RouterMACs {
			if _, ok := known[mac]; !ok {
				known[mac] = struct{}{}
				if !put(ctx, steps, step{router: mac}) {
					return nil
				}
			}
		}
		if err != nil && ctx.Err() != nil {
			return nil
		}
		at.Ended = err != nil
		s.Position = at
		if !put(ctx, steps, s) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			in.o.Logger.Info("replay has ended", "capture", in.o.Capture, "frames", at.Frame)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLive reads the interface and, when it fails (it was removed), tries to
// open it again.
func (in *intake) readLive(ctx context.Context, steps chan<- step) {
	failures := 0 // since the last frame
	for ctx.Err() == nil {
		f, err := in.source.Next(ctx)
		if err == nil {
			failures = 0
			if o := in.parser.Parse(f); len(o) > 0 && !put(ctx, steps, step{Step: registry.Step{Observations: o}}) {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		in.fail(err)
		in.o.Logger.Error("interface cannot be read; trying again", "interface", in.o.Interface, "err", err)
		_ = in.source.Close()
		for ; err != nil && retryBackoff.Sleep(ctx, failures) == nil; failures++ {
			err = in.openLive()
		}
		if err == nil {
			in.o.Logger.Info("interface is read again", "interface", in.o.Interface)
		}
	}
}

func put(ctx context.Context, steps chan<- step, s step) bool {
	select {
	case steps <- s:
		return true
	case <-ctx.Done():
		return false
	}
}

// write is the writing goroutine: it takes what is there, without waiting for
// more, into one transaction. What was read before ctx was done is written, too.
func (in *intake) write(ctx context.Context, steps <-chan step) {
	for s := range steps {
		batch, router := []registry.Step{s.Step}, s.router
	more:
		for router == "" && len(batch) < maxSteps {
			select {
			case s, ok := <-steps:
				if !ok {
					break more
				}
				batch, router = append(batch, s.Step), s.router
			default:
				break more
			}
		}
		if in.o.Interface != "" {
			batch = fold(batch)
		}
		in.retry(ctx, func(ctx context.Context) error { return in.registry.Observe(ctx, batch...) })
		if router != "" {
			in.retry(ctx, func(ctx context.Context) error { return in.forget(ctx, router) })
		}
	}
	in.retry(ctx, func(context.Context) error { return in.registry.Flush() })
}

// fold makes one step of several.
func fold(batch []registry.Step) []registry.Step {
	var all []discovery.Observation
	for _, s := range batch {
		all = append(all, s.Observations...)
	}
	return []registry.Step{{Observations: all}}
}

// forget removes the record of what turned out to be the router.
func (in *intake) forget(ctx context.Context, mac string) error {
	err := in.registry.Forget(ctx, mac, "it is the router")
	if errors.Is(err, registry.ErrUnknownDevice) {
		return nil
	}
	return err
}

// retry calls f until it succeeds. When ctx is done it gives it one more chance:
// what was read is written if the disk lets it.
func (in *intake) retry(ctx context.Context, f func(context.Context) error) {
	for n := 0; ; n++ {
		err := f(context.WithoutCancel(ctx))
		if err == nil || ctx.Err() != nil {
			return
		}
		in.o.Logger.Error("registry cannot write; the source waits until it can", "err", err)
		_ = retryBackoff.Sleep(ctx, n) // the next call is the last if ctx has ended
	}
}
