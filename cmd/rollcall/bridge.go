package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/health"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	"github.com/rollcall-platform/rollcall/workers/bridge"
)

type bridgeCmd struct {
	Service serviceFlags `embed:"" set:"admin_addr=127.0.0.1:9401"`
	MQTT    mqttFlags    `embed:"" group:"mqtt"`
	Kafka   kafkaFlags   `embed:"" group:"kafka"`

	EventsTopic     string        `help:"Kafka topic for the devices' events." default:"rollcall.device-events" env:"ROLLCALL_TOPIC"`
	RepliesTopic    string        `help:"Kafka topic for the devices' replies to commands." default:"rollcall.device-replies" env:"ROLLCALL_REPLIES_TOPIC"`
	DeadLetterTopic string        `help:"Kafka topic for messages that Kafka refuses for their size." default:"rollcall.device-events.dlq" env:"ROLLCALL_DEAD_LETTER_TOPIC"`
	Commands        bool          `help:"Also carry commands from Kafka to the RAEs. All bridges that do share the partitions." default:"true" negatable:"" env:"ROLLCALL_COMMANDS"`
	CommandsTopic   string        `help:"Kafka topic of the commands." default:"rollcall.device-commands" env:"ROLLCALL_COMMANDS_TOPIC"`
	CommandsGroup   string        `help:"Kafka consumer group of the bridges that carry commands." default:"${commands_group}" env:"ROLLCALL_COMMANDS_GROUP" placeholder:"NAME"`
	DrainTimeout    time.Duration `help:"When told to stop: how long to wait for Kafka to acknowledge what has come. The broker gives the rest to whoever comes next." default:"10s" env:"ROLLCALL_DRAIN_TIMEOUT"`
}

// mqttFlags say how the MQTT broker is reached.
type mqttFlags struct {
	URL            string         `name:"mqtt-url" help:"The broker: mqtts://host:8883, or mqtt://host:1883 on this host. Required." env:"ROLLCALL_MQTT_URL" placeholder:"URL"`
	CA             string         `name:"mqtt-tls-ca" help:"Trust the authorities in this PEM file instead of the system's." env:"ROLLCALL_MQTT_TLS_CA" placeholder:"FILE"`
	Cert           string         `name:"mqtt-tls-cert" help:"Client certificate, PEM." env:"ROLLCALL_MQTT_TLS_CERT" placeholder:"FILE"`
	Key            string         `name:"mqtt-tls-key" help:"Its private key, PEM." env:"ROLLCALL_MQTT_TLS_KEY" placeholder:"FILE"`
	Username       string         `name:"mqtt-username" help:"User name, for a broker that does not take the identity from the certificate." env:"ROLLCALL_MQTT_USERNAME" placeholder:"NAME"`
	Password       cli.SecretFile `name:"mqtt-password-file" help:"File that holds its password." env:"ROLLCALL_MQTT_PASSWORD_FILE" placeholder:"FILE"`
	Insecure       bool           `help:"Allow mqtt:// to another host: anybody on the way can read and forge events." env:"ROLLCALL_MQTT_INSECURE"`
	ClientID       string         `name:"mqtt-client-id" help:"Name of the broker's session for this bridge. It must stay the same over restarts, and be no other's." default:"rollcall-bridge" env:"ROLLCALL_MQTT_CLIENT_ID" placeholder:"NAME"`
	Filters        []string       `name:"mqtt-filters" help:"Topic filters to take. To scale, give each bridge filters that no other has. Default: the events and replies of every RAE." env:"ROLLCALL_MQTT_FILTERS" placeholder:"FILTER,…"`
	SessionExpiry  time.Duration  `name:"mqtt-session-expiry" help:"How long the broker keeps what comes while the bridge is away." default:"168h" env:"ROLLCALL_MQTT_SESSION_EXPIRY"`
	ReceiveMaximum uint16         `name:"mqtt-receive-maximum" help:"Messages that may wait for Kafka's acknowledgement at a time, and that a lost connection repeats." default:"1000" env:"ROLLCALL_MQTT_RECEIVE_MAXIMUM"`
}

// options are what the flags say of a subscriber.
func (c *bridgeCmd) options() (bridge.SubscriberOptions, error) {
	m := &c.MQTT
	if m.URL == "" {
		return bridge.SubscriberOptions{}, errors.New("no broker: set --mqtt-url or ROLLCALL_MQTT_URL")
	}
	if (m.Username != "") != m.Password.IsSet() {
		return bridge.SubscriberOptions{}, errors.New("--mqtt-username and --mqtt-password-file go together")
	}
	if m.ClientID == "" || m.ReceiveMaximum == 0 {
		return bridge.SubscriberOptions{}, errors.New("--mqtt-client-id must not be empty, --mqtt-receive-maximum at least 1")
	}
	config, err := mqtt.TLSFiles{CA: m.CA, Cert: m.Cert, Key: m.Key}.Load()
	return bridge.SubscriberOptions{
		Broker:   mqtt.Broker{URL: m.URL, Insecure: m.Insecure, TLS: config, Username: m.Username, Password: m.Password.Reveal()},
		ClientID: m.ClientID, Filters: m.Filters, SessionExpiry: m.SessionExpiry, ReceiveMaximum: m.ReceiveMaximum,
		DrainTimeout: c.DrainTimeout,
	}, err
}

// downlink builds what carries commands: from Kafka, and to the MQTT broker.
func (c *bridgeCmd) downlink(s *service, o bridge.SubscriberOptions) (*bridge.Downlink, *bridge.Client, error) {
	client, err := bridge.NewClient(bridge.ClientOptions{
		Broker: o.Broker, ClientID: o.ClientID + "-commands", Logger: s.logger,
	})
	if err != nil {
		return nil, nil, err
	}
	d, err := bridge.NewDownlink(bridge.DownlinkOptions{
		Kafka: c.Kafka.options("bridge-commands"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{s.logger})},
		Publisher: client, Topic: c.CommandsTopic, DeadLetterTopic: c.DeadLetterTopic, Group: c.CommandsGroup, InstanceID: o.ClientID,
		Logger: s.logger, Registerer: s.registry,
	})
	return d, client, err
}

// run runs the way up and, if it is asked for, the way down.
func (c *bridgeCmd) run(ctx context.Context, s *service, up *bridge.Subscriber, o bridge.SubscriberOptions) error {
	group, ctx := errgroup.WithContext(ctx)
	if c.Commands {
		down, client, err := c.downlink(s, o)
		if err != nil {
			return err
		}
		group.Go(func() error { return s.run(ctx, "commands-mqtt", client) })
		s.watch(health.Dependency{Name: "commands-kafka", Ask: down.Ping})
		group.Go(func() error { return down.Run(ctx) })
	}
	group.Go(func() error { return s.run(ctx, "mqtt", up) })
	return group.Wait()
}

// Help is printed by bridge --help.
func (*bridgeCmd) Help() string {
	return `Takes the messages of the RAEs from any MQTT 5 broker and produces them to Kafka, the MQTT topic as the key. It acknowledges a message to the broker only when Kafka has acknowledged it on all in-sync replicas; while Kafka is away the broker's session keeps the rest.

The other way it carries commands: it publishes what is in the topic of commands to the RAE's command topic, by an MQTT client of its own (the client's name with -commands behind it), and commits the offset when the broker has acknowledged it. A command that has expired is not sent.

Run one for each set of topic filters. Two with the same filters would carry every message twice; shared subscriptions lose the order within a topic and are refused.

Examples:

    rollcall bridge --mqtt-url mqtts://broker:8883 --mqtt-tls-cert bridge.pem --mqtt-tls-key bridge.key --kafka-brokers kafka-1:9092

    rollcall bridge --mqtt-url mqtt://localhost:1883 --mqtt-client-id bridge-a --mqtt-filters 'rollcall/v1/RAE-0042/sessions/+/events'`
}

// nobody forwards nothing: it stands in where settings are only checked.
type nobody struct{}

func (nobody) ForwardAsync(context.Context, string, []byte, func(error)) {}

// Validate is called by kong before anything starts.
func (c *bridgeCmd) Validate() error {
	o, err := c.options()
	if err == nil {
		o.Forwarder = nobody{}
		_, err = bridge.NewSubscriber(o)
	}
	return errors.Join(c.Service.validate(), c.Kafka.validate(), err)
}

// Run carries messages until ctx is cancelled, then drains. It subscribes before
// Kafka answers: from then on the broker keeps what comes.
func (c *bridgeCmd) Run(ctx context.Context, env cli.Env) error {
	return runService(ctx, env, "bridge", c.Service, func(ctx context.Context, s *service) error {
		o, err := c.options()
		if err != nil {
			return err
		}
		forwarder, err := bridge.NewForwarder(bridge.ForwarderOptions{
			Kafka: c.Kafka.options("bridge"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{s.logger})},
			EventsTopic: c.EventsTopic, RepliesTopic: c.RepliesTopic, DeadLetterTopic: c.DeadLetterTopic,
			Logger: s.logger, Registerer: s.registry,
		})
		if err != nil {
			return err
		}
		o.Forwarder, o.Logger, o.Registerer = forwarder, s.logger, s.registry
		subscriber, err := bridge.NewSubscriber(o)
		if err != nil {
			return errors.Join(err, forwarder.Close(ctx))
		}
		s.watch(health.Dependency{Name: "kafka", Ask: forwarder.Ping})
		err = c.run(ctx, s, subscriber, o)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout)
		defer cancel()
		return errors.Join(err, forwarder.Close(closing))
	})
}
