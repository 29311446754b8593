package kafkatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// properties is the broker's configuration. Its controller listens at the
// given address.
func (b *Broker) properties(controller string) (string, error) {
	cert, key, err := b.CA.Issue(Leaf{Name: "broker", Server: true})
	if err != nil {
		return "", err
	}
	// The key first: a PEM store is one file with key and chain.
	store := filepath.Join(b.dir, "broker.pem")
	if err := os.WriteFile(store, append(key, cert...), 0o600); err != nil {
		return "", err
	}
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.bootstrap.servers=" + controller,
		"controller.listener.names=CONTROLLER",
		"listeners=CONTROLLER://" + controller + ",PLAIN://" + b.Plain + ",MTLS://" + b.MutualTLS + ",SASL://" + b.SASL,
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,MTLS:SSL,SASL:SASL_SSL",
		"inter.broker.listener.name=PLAIN",
		"log.dirs=" + filepath.Join(b.dir, "data"),
		"auto.create.topics.enable=false",
		"group.initial.rebalance.delay.ms=0",
		"num.partitions=1",
		"default.replication.factor=1",
		"min.insync.replicas=1",
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=2",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"group.consumer.session.timeout.ms=6000",
		"group.consumer.min.session.timeout.ms=6000",
		"group.consumer.min.heartbeat.interval.ms=500",
		"group.consumer.heartbeat.interval.ms=500",

		// One node needs few threads.
		"num.network.threads=2", "num.io.threads=2", "background.threads=2", "log.cleaner.enable=false",

		"listener.name.mtls.ssl.client.auth=required",
		"listener.name.sasl.ssl.client.auth=none",

		"listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		fmt.Sprintf(`listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, User, Password),
		"listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
		"listener.name.sasl.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
		// Kafka 4.1.0 does not see these under the listener's prefix, and then
		// takes any token that has the form of one, whoever signed it.
		"sasl.oauthbearer.jwt.validator.class=org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator",
		"sasl.oauthbearer.jwks.endpoint.url=" + b.Tokens.jwksURL(),
		"sasl.oauthbearer.expected.audience=" + Audience,
		fmt.Sprintf("listener.name.sasl.oauthbearer.connections.max.reauth.ms=%d", ReauthEvery.Milliseconds()),
	}
	for _, listener := range []string{"mtls", "sasl"} {
		p := "listener.name." + listener + ".ssl."
		lines = append(lines, p+"keystore.type=PEM", p+"keystore.location="+store, p+"truststore.type=PEM", p+"truststore.location="+b.CAFile)
	}
	return strings.Join(lines, "\n") + "\n", nil
}
