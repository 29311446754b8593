package mqtt_test

import (
	"crypto/tls"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/mqtt"
)

func TestBrokerIsRefused(t *testing.T) {
	for url, want := range map[string]string{
		"":                              "not of the form",
		"mqtt://":                       "not of the form",
		"http://localhost":              "neither mqtt nor mqtts",
		"mqtt://user:secret@localhost":  "password file",
		"mqtt://broker.example":         "--insecure",
		"mqtt://10.0.0.1:1883":          "--insecure",
		"mqtts://broker.example:1/path": "nothing may follow",
		"mqtts://broker.example?a=b":    "nothing may follow",
		"mqtts://broker.example#a":      "nothing may follow",
	} {
		err := mqtt.Broker{URL: url}.Check()
		require.ErrorContains(t, err, want, url)
		require.NotContains(t, err.Error(), "secret")
	}
	require.ErrorContains(t, mqtt.Broker{URL: "mqtt://localhost", Username: "a"}.Check(), "needs a password")
	require.ErrorContains(t, mqtt.Broker{URL: "mqtt://localhost", Password: "secret"}.Check(), "a user name")
}

func TestEndpointHasAPortAndTLSWhereTheSchemeSaysSo(t *testing.T) {
	for url, want := range map[string]string{
		"mqtt://localhost":        "mqtt://localhost:1883",
		"mqtt://[::1]:9":          "mqtt://[::1]:9",
		"mqtt://10.0.0.1":         "mqtt://10.0.0.1:1883",
		"mqtts://broker.example/": "mqtts://broker.example:8883",
	} {
		u, config, err := mqtt.Broker{URL: url, Insecure: true}.Endpoint()
		require.NoError(t, err)
		require.Equal(t, want, u.String())
		require.Equal(t, u.Scheme == "mqtts", config != nil, url)
	}
	own := &tls.Config{MinVersion: tls.VersionTLS13}
	_, config, err := mqtt.Broker{URL: "mqtts://broker.example:1", TLS: own}.Endpoint()
	require.NoError(t, err)
	require.Equal(t, "broker.example", config.ServerName)
	require.Equal(t, uint16(tls.VersionTLS13), config.MinVersion)
	require.Empty(t, own.ServerName, "the caller's configuration is not changed")
	own.ServerName = "other.example"
	_, config, err = mqtt.Broker{URL: "mqtts://broker.example:1", TLS: own}.Endpoint()
	require.NoError(t, err)
	require.Equal(t, "other.example", config.ServerName)
	_, config, err = mqtt.Broker{URL: "mqtts://broker.example"}.Endpoint()
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS12), config.MinVersion)
}

func TestTLSFilesAreRefused(t *testing.T) {
	_, err := mqtt.TLSFiles{Cert: "x"}.Load()
	require.ErrorContains(t, err, "needs its key")
	_, err = mqtt.TLSFiles{Key: "x"}.Load()
	require.ErrorContains(t, err, "a key its certificate")
	_, err = mqtt.TLSFiles{CA: os.DevNull}.Load()
	require.ErrorContains(t, err, "no PEM certificate")
}
