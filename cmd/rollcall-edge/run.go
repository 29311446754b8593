package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/edge/uplink"
	"github.com/rollcall-platform/rollcall/internal/admin"
	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
)

type runCmd struct {
	dataFlags
	RAE   string      `name:"rae" help:"Serial of this RAE." required:"" env:"ROLLCALL_RAE" placeholder:"SERIAL"`
	Admin admin.Flags `embed:"" set:"admin_addr=127.0.0.1:9404"`

	Interface     string         `group:"source" help:"Read this LAN interface (needs CAP_NET_RAW)." env:"ROLLCALL_INTERFACE" placeholder:"NAME" xor:"source" required:""`
	Capture       string         `group:"source" help:"Replay this pcap or pcapng file instead." env:"ROLLCALL_CAPTURE" placeholder:"FILE" xor:"source" required:""`
	Speed         string         `group:"source" help:"Speed of the replay: recorded, max, or a factor such as 10 (ten times as fast)." default:"recorded" env:"ROLLCALL_SPEED"`
	MaxGap        time.Duration  `group:"source" help:"Cut pauses in the recording to this. 0 keeps them." default:"0" env:"ROLLCALL_MAX_GAP"`
	Rewind        bool           `group:"source" help:"Replay from the first frame. Otherwise a replay continues where it stopped."`
	ExitAtEnd     bool           `group:"source" help:"Exit when the replay has ended and all events are published. Otherwise run on and take snapshots."`
	LAN           []netip.Prefix `name:"lan" group:"source" help:"Prefixes of the LAN. Default: the interface's, or what the capture tells." env:"ROLLCALL_LAN" placeholder:"PREFIX"`
	RouterMAC     []string       `name:"router-mac" group:"source" help:"MAC addresses of the router, which is not recorded as a device. Default: the interface's, or what the capture tells." env:"ROLLCALL_ROUTER_MAC" placeholder:"MAC"`
	ProbeInterval time.Duration  `group:"source" help:"Send an ARP request to each known device this often. Negative: never." default:"30s" env:"ROLLCALL_PROBE_INTERVAL"`

	MQTTURL      string         `name:"mqtt-url" group:"mqtt" help:"The broker: mqtts://host:8883, or mqtt://host:1883 on this host." required:"" env:"ROLLCALL_MQTT_URL" placeholder:"URL"`
	TLSCA        string         `name:"tls-ca" group:"mqtt" help:"PEM file of the authorities that may sign the broker's certificate. Default: the system's." env:"ROLLCALL_TLS_CA" placeholder:"FILE"`
	TLSCert      string         `name:"tls-cert" group:"mqtt" help:"PEM file of this RAE's certificate; its common name is the serial." env:"ROLLCALL_TLS_CERT" placeholder:"FILE"`
	TLSKey       string         `name:"tls-key" group:"mqtt" help:"PEM file of its private key." env:"ROLLCALL_TLS_KEY" placeholder:"FILE"`
	Username     string         `group:"mqtt" help:"User name, for a broker that does not take the identity from the certificate." env:"ROLLCALL_MQTT_USERNAME"`
	PasswordFile cli.SecretFile `group:"mqtt" help:"File that holds its password." env:"ROLLCALL_MQTT_PASSWORD_FILE" placeholder:"FILE"`
	Insecure     bool           `group:"mqtt" help:"Allow mqtt:// to another host. Anybody on the path can then read and forge events." env:"ROLLCALL_MQTT_INSECURE"`
	MQTTWindow   int            `name:"mqtt-window" group:"mqtt" help:"Most events in flight. The broker's Receive Maximum bounds them too." default:"32" env:"ROLLCALL_MQTT_WINDOW"`
	DrainTimeout time.Duration  `group:"mqtt" help:"How long a stop may take to publish the events that wait. The rest is published after the next start." default:"5s" env:"ROLLCALL_DRAIN_TIMEOUT"`

	SnapshotInterval time.Duration `group:"record" help:"Time between two snapshots of a device, give or take a tenth. Negative: none." default:"3h" env:"ROLLCALL_SNAPSHOT_INTERVAL"`
	OfflineAfter     time.Duration `group:"record" help:"A device on the interface is offline after it was silent for this long." default:"90s" env:"ROLLCALL_OFFLINE_AFTER"`
	ForgetAfter      time.Duration `group:"record" help:"Forget a device after it was offline for this long. Negative: never." default:"720h" env:"ROLLCALL_FORGET_AFTER"`
	MaxDevices       int           `group:"record" help:"Most devices to have a record of." default:"4096" env:"ROLLCALL_MAX_DEVICES"`
	OutboxMiB        int64         `name:"outbox-mib" group:"record" help:"MiB of events that may wait for the broker. Beyond it changes are folded into the records; nothing is dropped." default:"256" env:"ROLLCALL_OUTBOX_MIB"`
}

// Help is printed by run --help.
func (*runCmd) Help() string {
	return `Reads the frames of a LAN interface, or of a capture file, and recognises the devices that sent them. Each change is written as an event to the outbox, in the same transaction as the record. The event leaves the outbox when the broker has acknowledged it (MQTT 5, QoS 1). While the broker is away, events wait.

A replay that was killed continues behind the last frame on disk and gives the same events.

Examples:

    rollcall-edge run --rae RAE-0042 --interface br-lan --mqtt-url mqtts://broker.example:8883 --tls-ca ca.pem --tls-cert rae.pem --tls-key rae.key

    rollcall-edge run --rae RAE-TEST --capture testdata/lan/lan.pcap --speed 10 --mqtt-url mqtt://localhost:1883 --data-dir edge-data

    rollcall-edge run --config /etc/rollcall-edge.yaml --check-config`
}

// speed is the replay's factor; 0 is as fast as it goes.
func (c *runCmd) speed() (float64, error) {
	switch c.Speed {
	case "recorded":
		return 1, nil
	case "max":
		return 0, nil
	}
	f, err := strconv.ParseFloat(c.Speed, 64)
	if err != nil || f <= 0 || f > 1e6 {
		return 0, fmt.Errorf("--speed %q is neither recorded, max, nor a factor above 0", c.Speed)
	}
	return f, nil
}

func (c *runCmd) options(env cli.Env) (edge.Options, error) {
	speed, err := c.speed()
	if err != nil {
		return edge.Options{}, err
	}
	if c.MaxDevices < 1 || c.OutboxMiB < 1 || c.MQTTWindow < 1 || c.OfflineAfter <= 0 || c.MaxGap < 0 || c.DrainTimeout < 0 {
		return edge.Options{}, errors.New("--max-devices, --outbox-mib, --mqtt-window and --offline-after must be above 0, --max-gap and --drain-timeout not below")
	}
	if c.Username != "" != c.PasswordFile.IsSet() {
		return edge.Options{}, errors.New("--username and --password-file go together")
	}
	tls, err := uplink.LoadTLS(mqtt.TLSFiles{CA: c.TLSCA, Cert: c.TLSCert, Key: c.TLSKey}, c.RAE)
	if err != nil {
		return edge.Options{}, err
	}
	drain := c.DrainTimeout
	if drain == 0 {
		drain = -1
	}
	o := edge.Options{
		RAE: c.RAE, DataDir: c.DataDir, Logger: env.Logger,
		Interface: c.Interface, Capture: c.Capture, Speed: speed, MaxGap: c.MaxGap, Rewind: c.Rewind, ExitAtEnd: c.ExitAtEnd,
		LAN: c.LAN, RouterMACs: c.RouterMAC, ProbeInterval: c.ProbeInterval,
		Broker: mqtt.Broker{URL: c.MQTTURL, Insecure: c.Insecure, TLS: tls, Username: c.Username, Password: c.PasswordFile.Reveal()},
		Window: c.MQTTWindow, Drain: drain,
		SnapshotInterval: c.SnapshotInterval, OfflineAfter: c.OfflineAfter, ForgetAfter: c.ForgetAfter,
		MaxDevices: c.MaxDevices, MaxOutboxBytes: c.OutboxMiB << 20,
	}
	return o, nil
}

// Validate is called by kong before anything starts.
func (c *runCmd) Validate() error {
	o, err := c.options(cli.Env{})
	if err != nil {
		return err
	}
	o.Logger = discard
	return errors.Join(c.Admin.Options().Check(), o.Validate())
}

// Run runs the edge until ctx is cancelled or the replay is done.
func (c *runCmd) Run(ctx context.Context, env cli.Env) error {
	o, err := c.options(env)
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	o.Registerer = reg
	listener := c.Admin.Options()
	listener.Registry, listener.Logger = reg, env.Logger
	server, err := admin.New(listener)
	if err != nil {
		return err
	}
	e, err := edge.New(o)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	for name, ready := range e.Checks() {
		server.AddCheck(name, ready)
	}
	env.Logger.Info("edge starts", "rae", c.RAE, "version", cli.Version(), "data_dir", c.DataDir, "devices", len(e.Devices()))

	// The listener outlives the edge: its drain can be watched.
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return server.Run(listening) })
	err = e.Run(ctx)
	stop()
	return errors.Join(err, group.Wait())
}
