package temporal

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
)

// DefaultNamespace is the namespace that Start creates if Options names none.
const DefaultNamespace = "default"

// DefaultRetention is how long closed workflows stay queryable.
const DefaultRetention = 72 * time.Hour

// Options says where the server keeps its state and where it listens.
type Options struct {
	// DataDir holds temporal.db and temporal.log. Required; created if absent.
	DataDir string

	// FrontendAddr is host:port of the gRPC frontend, which the SDKs and the
	// temporal CLI dial. Required. The host must be an IP address: the server's
	// own services find each other on it.
	FrontendAddr string

	// UIAddr is host:port of the Web UI. Empty: no Web UI.
	UIAddr string

	// MetricsAddr is host:port of the server's Prometheus endpoint, path
	// /metrics. Empty: none.
	MetricsAddr string

	// Namespace is created on the first start. Default: DefaultNamespace.
	Namespace string

	// Retention of closed workflows in Namespace. Default: DefaultRetention. A
	// changed value is applied on the next start.
	Retention time.Duration

	// SearchAttributes are registered in Namespace by name and type; ones added
	// later are registered on the next start. Removing one here leaves it
	// registered. Nil: SearchAttributes(), what the workflows of this platform
	// set. A name already registered with another type is an error.
	SearchAttributes map[string]enumspb.IndexedValueType

	// Logger gets this package's own few lines. The server's, from warnings up,
	// go to temporal.log in DataDir: it warns about much that is normal while
	// starting and stopping. Default: slog.Default().
	Logger *slog.Logger
}

// SearchAttributes returns the typed search attributes of a DeviceSession.
func SearchAttributes() map[string]enumspb.IndexedValueType {
	attributes := make(map[string]enumspb.IndexedValueType)
	for _, name := range []string{"RaeSerial", "DeviceModel", "Esn", "ConnectionStatus", "TestState", "SyncState"} {
		attributes[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	return attributes
}

func (o *Options) setDefaults() {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.Retention == 0 {
		o.Retention = DefaultRetention
	}
	if o.SearchAttributes == nil {
		o.SearchAttributes = SearchAttributes()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// addresses are Options' host:port strings, parsed.
type addresses struct {
	host         string
	frontendPort int
	uiHost       string
	uiPort       int
}

func (o *Options) validate() (addresses, error) {
	var a addresses
	if o.DataDir == "" {
		return a, errors.New("temporal: Options.DataDir is empty")
	}
	if o.Retention < 24*time.Hour {
		return a, fmt.Errorf("temporal: retention %s is shorter than the server's minimum of 24h", o.Retention)
	}
	var err error
	if a.host, a.frontendPort, err = splitAddr("FrontendAddr", o.FrontendAddr); err != nil {
		return a, err
	}
	if o.UIAddr != "" {
		if a.uiHost, a.uiPort, err = splitAddr("UIAddr", o.UIAddr); err != nil {
			return a, err
		}
	}
	if o.MetricsAddr != "" {
		if _, _, err = splitAddr("MetricsAddr", o.MetricsAddr); err != nil {
			return a, err
		}
	}
	return a, nil
}

// splitAddr wants an IP address and a fixed port: the server is configured with
// the numbers and cannot report which port the kernel chose.
func splitAddr(option, addr string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("temporal: Options.%s: %w", option, err)
	}
	if net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("temporal: Options.%s %q: the host must be an IP address", option, addr)
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("temporal: Options.%s %q: the port must be between 1 and 65535", option, addr)
	}
	return host, port, nil
}
