package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// dut is one simulated device: it makes its lawful events and is the model of
// what they come to. It shares no code with the fold.
type dut struct {
	rae, session, key string
	number            int
	probe             bool // its latency is looked at
	seq               int64
	clock             time.Time
	attributes        map[string]device.Attribute
}

// A device has 20 attributes. Those that are fixed are set when its session
// opens; three of them are evidence of which device it is, as a real one has.
// What changes all the time is one thing, what people watch and Temporal shows
// as search attributes another: that changes now and then, and between few
// values.
var (
	fixed = []string{
		"device.manufacturer", device.AttrDeviceModel, "device.friendly_name", "display.resolution", "display.hdcp",
		device.AttrMAC, device.AttrDeviceSerial, device.AttrESN,
	}
	changing = []string{
		device.AttrIPv4, device.AttrIPv6, "network.rssi", "firmware.version", "netflix.app_version",
		"state.power", "state.foreground_app", "state.uptime", "audio.output", "telemetry.temperature",
	}
	watched = map[string][]string{
		device.AttrConnectionStatus: {device.Online, device.Offline},
		"state.test":                {"idle", "running", "failed"},
	}
)

const (
	// deltaChanges is how many attributes a delta changes: with it an event
	// has about 900 bytes. A snapshot lists all twenty with seq and time:
	// some 2½ KB.
	deltaChanges = 6
	// watchedEvery: one delta in so many changes a watched attribute too.
	watchedEvery = 20
)

// fleet is some devices, on one RAE for each fifty.
type fleet struct {
	duts   []*dut
	random *rand.Rand
}

// newFleet draws n devices on RAEs called {prefix}-1 and so on. The same seed
// draws the same devices.
func newFleet(prefix string, n int, seed uint64) *fleet {
	f := &fleet{random: rand.New(rand.NewPCG(seed, 0))}
	for i := range n {
		var id [16]byte
		for j := range id {
			id[j] = byte(f.random.Uint32())
		}
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // UUID version 4
		d := &dut{
			rae: fmt.Sprintf("%s-%d", prefix, i/50+1), session: uuid.UUID(id).String(), number: i,
			clock: time.Now().UTC().Truncate(time.Millisecond), attributes: map[string]device.Attribute{},
		}
		d.key = "rollcall/v1/" + d.rae + "/sessions/" + d.session + "/" + device.KindEvents
		f.duts = append(f.duts, d)
	}
	return f
}

// probes marks n of the devices, evenly.
func (f *fleet) probes(n int) {
	every := max(1, len(f.duts)/n)
	for i, d := range f.duts {
		d.probe = i%every == 0
	}
}

// any is one of the devices, each as likely as the others.
func (f *fleet) any() *dut { return f.duts[f.random.IntN(len(f.duts))] }

// open begins the session: all twenty attributes.
func (d *dut) open() device.Event {
	e := d.event(device.Opened)
	for i, name := range fixed {
		value := fmt.Sprintf("%s of the bench, number %d", name, i)
		switch name {
		case device.AttrMAC:
			// Globally administered: the bit 0x02 of the first byte is not set.
			id := uuid.MustParse(d.session)
			value = fmt.Sprintf("00:%02x:%02x:%02x:%02x:%02x", id[0], id[1], id[2], id[3], id[4])
		case device.AttrDeviceSerial, device.AttrESN:
			value = "BENCH-" + d.session
		}
		d.set(&e, name, value)
	}
	for _, name := range changing {
		d.set(&e, name, d.fresh(name))
	}
	for name, values := range watched {
		d.set(&e, name, values[0])
	}
	return e
}

// delta changes a few attributes, another few each time.
func (d *dut) delta() device.Event {
	e := d.event(device.Delta)
	for i := range deltaChanges {
		name := changing[(int(e.Seq)*deltaChanges+i)%len(changing)]
		d.set(&e, name, d.fresh(name))
	}
	if n := int(e.Seq) + d.number; n%watchedEvery == 0 {
		for name, values := range watched {
			d.set(&e, name, values[n/watchedEvery%len(values)])
		}
	}
	return e
}

// snapshot lists all that the device is. It changes nothing.
func (d *dut) snapshot() device.Event {
	e := d.event(device.Snapshot)
	for name, a := range d.attributes {
		e.Attributes[name] = a
	}
	return e
}

// next is the event that follows: the first opens, and of the others the
// given share are snapshots.
func (d *dut) next(random *rand.Rand, snapshots float64) device.Event {
	switch {
	case d.seq == 0:
		return d.open()
	case random.Float64() < snapshots:
		return d.snapshot()
	}
	return d.delta()
}

func (d *dut) event(typ device.Type) device.Event {
	d.seq++
	d.clock = d.clock.Add(time.Millisecond)
	return device.Event{RAE: d.rae, Session: d.session, Type: typ, Seq: d.seq, Time: d.clock, Attributes: map[string]device.Attribute{}}
}

func (d *dut) fresh(name string) string {
	return fmt.Sprintf("%s %08d of %06d, as the device itself tells it now", name, d.seq, d.number)
}

func (d *dut) set(e *device.Event, name, value string) {
	v, err := json.Marshal(value)
	if err != nil {
		panic(err) // of a string
	}
	a := device.Attribute{Value: v, Seq: e.Seq, At: e.Time}
	e.Attributes[name], d.attributes[name] = a, a
}

// record is the event as the bridge would produce it.
func record(topic string, d *dut, e device.Event) (*kgo.Record, error) {
	value, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return &kgo.Record{Topic: topic, Key: []byte(d.key), Value: value}, nil
}
