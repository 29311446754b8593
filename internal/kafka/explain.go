package kafka

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Explain wraps an error of reaching a broker so that it also says what to do
// about it. An error that it has no advice for, and nil, it returns as it is.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	advice := adviceFor(err)
	if advice == "" {
		return err
	}
	return fmt.Errorf("%s: %w", advice, err)
}

const (
	wantsOther     = "the listener wants TLS or SASL that is not set here, or does not want what is set"
	wantsTLS       = "the listener wants TLS, and none is set here: turn TLS on"
	wantsNoSASL    = "the listener wants no SASL: set no mechanism, or take its SASL listener's port"
	refusesUser    = "the broker refuses the SASL user or its password: check both, and that the user is known for this mechanism"
	refusesToken   = "the broker refuses the bearer token: check that it has not expired, and its issuer and audience"
	lacksMechanism = "the listener does not offer this SASL mechanism: set one that it has"
	untrusted      = "the broker's certificate is of an authority that is not trusted here: set the CA file to its authority's"
	otherName      = "the broker's certificate is for another name: use an address that it names, in the brokers given and in what the brokers advertise"
	expired        = "the broker's certificate cannot be used: renew it, or set this machine's clock"
	refusesCert    = "the broker refuses the client certificate: set one that has not expired, of an authority that the broker trusts, and its key"
	nobodyListens  = "nobody listens there: start the broker, or correct the address"
	unknownHost    = "there is no such host: correct the address"
	notAllowed     = "the broker knows this client, but does not allow it: give its principal an ACL for this"
)

// Parts of errors that have no type to ask for.
const (
	oauthChallenge  = "unexpected data in oauth response"
	tlsAlertPrefix  = "remote error: tls:"
	tlsRecordOfTLS  = "appear to be a tls"
	certificateWord = "certificate"
)

var brokerAdvice = []struct {
	code   *kerr.Error
	advice string
}{
	{kerr.SaslAuthenticationFailed, refusesUser},
	{kerr.UnsupportedSaslMechanism, lacksMechanism},
	{kerr.IllegalSaslState, wantsNoSASL},
	{kerr.TopicAuthorizationFailed, notAllowed},
	{kerr.GroupAuthorizationFailed, notAllowed},
	{kerr.ClusterAuthorizationFailed, notAllowed},
	{kerr.TransactionalIDAuthorizationFailed, notAllowed},
}

func adviceFor(err error) string {
	for _, b := range brokerAdvice {
		if errors.Is(err, b.code) {
			return b.advice
		}
	}
	var (
		hungUp    *kgo.ErrFirstReadEOF
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &hungUp):
		return wantsOther
	case errors.As(err, &authority):
		return untrusted
	case errors.As(err, &name):
		return otherName
	case errors.As(err, &invalid):
		return expired
	case errors.As(err, &dns) && dns.IsNotFound:
		return unknownHost
	case errors.Is(err, syscall.ECONNREFUSED):
		return nobodyListens
	}
	text := err.Error()
	switch {
	case strings.Contains(text, oauthChallenge):
		return refusesToken
	case strings.Contains(text, tlsRecordOfTLS):
		return wantsTLS
	case strings.Contains(text, tlsAlertPrefix) && strings.Contains(text, certificateWord):
		return refusesCert
	}
	return ""
}
