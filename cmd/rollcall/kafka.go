package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/request"
)

// kafkaFlags say how Kafka is reached and trusted.
type kafkaFlags struct {
	Brokers  []string       `name:"kafka-brokers" help:"Brokers to ask first." default:"127.0.0.1:9092" env:"ROLLCALL_KAFKA_BROKERS" placeholder:"HOST:PORT,…" address:""`
	TLS      bool           `name:"kafka-tls" help:"Use TLS. The other TLS flags imply it." env:"ROLLCALL_KAFKA_TLS"`
	CA       string         `name:"kafka-tls-ca" help:"Trust the authorities in this PEM file instead of the system's." env:"ROLLCALL_KAFKA_TLS_CA" placeholder:"FILE"`
	Cert     string         `name:"kafka-tls-cert" help:"Client certificate, PEM." env:"ROLLCALL_KAFKA_TLS_CERT" placeholder:"FILE"`
	Key      string         `name:"kafka-tls-key" help:"Its private key, PEM." env:"ROLLCALL_KAFKA_TLS_KEY" placeholder:"FILE"`
	SASL     string         `name:"kafka-sasl" help:"Authenticate by ${enum}." enum:"none,plain,scram-sha-256,scram-sha-512,oauthbearer" default:"none" env:"ROLLCALL_KAFKA_SASL" placeholder:"MECHANISM"`
	Username string         `name:"kafka-username" help:"User name for plain and scram." env:"ROLLCALL_KAFKA_USERNAME" placeholder:"NAME"`
	Password cli.SecretFile `name:"kafka-password-file" help:"File that holds the password." env:"ROLLCALL_KAFKA_PASSWORD_FILE" placeholder:"FILE"`
	Token    string         `name:"kafka-token-file" help:"File that holds the bearer token; it is read for each connection." env:"ROLLCALL_KAFKA_TOKEN_FILE" placeholder:"FILE"`
}

func (k *kafkaFlags) validate() error {
	_, err := k.options("check").Opts()
	return err
}

// options are those of the named service's Kafka clients.
func (k *kafkaFlags) options(service string) kafka.Options {
	mechanism := strings.ToUpper(k.SASL)
	if k.SASL == "none" {
		mechanism = ""
	}
	return kafka.Options{
		Brokers: k.Brokers, ClientID: "rollcall-" + service,
		TLS: k.TLS, CAFile: k.CA, CertFile: k.Cert, KeyFile: k.Key,
		SASLMechanism: mechanism, User: k.Username, Password: k.Password.Reveal(), TokenFile: k.Token,
	}
}

// requestFlags say where commands to RAEs go and their replies come from.
type requestFlags struct {
	Kafka         kafkaFlags `embed:"" group:"kafka"`
	CommandsTopic string     `help:"Kafka topic of the commands." default:"rollcall.device-commands" env:"ROLLCALL_COMMANDS_TOPIC"`
	RepliesTopic  string     `help:"Kafka topic of the replies." default:"rollcall.device-replies" env:"ROLLCALL_REPLIES_TOPIC"`
}

// requester returns what sends commands and waits for replies. Close it after
// use.
func (f *requestFlags) requester(ctx context.Context, env cli.Env) (*request.Requester, error) {
	return request.Open(ctx, request.Options{
		Kafka: f.Kafka.options("cli"), KafkaOpts: []kgo.Opt{kgo.WithLogger(kafkaLogger{env.Logger})},
		CommandsTopic: f.CommandsTopic, RepliesTopic: f.RepliesTopic, Logger: env.Logger,
	})
}

// kafkaLogger passes on what the Kafka client says from warnings upward. The
// client retries: nothing it says is an error of the service yet, and what it
// calls information is debugging to everybody else.
type kafkaLogger struct{ logger *slog.Logger }

func (l kafkaLogger) Level() kgo.LogLevel {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

func (l kafkaLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	severity := slog.LevelDebug
	if level == kgo.LogLevelError || level == kgo.LogLevelWarn {
		severity = slog.LevelWarn
	}
	l.logger.Log(context.Background(), severity, "kafka client", append([]any{"says", msg}, keyvals...)...)
}
