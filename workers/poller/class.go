package poller

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// DefaultClass is the name of the class of what no pattern matches, and
// DefaultWeight its weight.
const (
	DefaultClass  = "default"
	DefaultWeight = 4
)

// maxWeight keeps products of weights and lanes far from an overflow.
const maxWeight = 1000

// Class is a share of the window for some RAEs. While several classes have work
// each has places in flight in proportion to its weight; what one does not need
// the others have.
type Class struct {
	// Pattern of RAE serials, as path.Match has it: * is any run of
	// characters, ? is one, [a-z] is one of a range.
	Pattern string
	// Weight is 1 to 1000. The default class has 4.
	Weight int
}

// ParseClass reads pattern=weight. The last = divides.
func ParseClass(s string) (Class, error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return Class{}, fmt.Errorf("class %q is not pattern=weight", s)
	}
	weight, err := strconv.Atoi(s[i+1:])
	if err != nil {
		return Class{}, fmt.Errorf("class %q: weight %q is not a number", s, s[i+1:])
	}
	c := Class{Pattern: s[:i], Weight: weight}
	return c, c.check()
}

func (c Class) check() error {
	switch _, err := path.Match(c.Pattern, ""); {
	case c.Pattern == "":
		return errors.New("class without a pattern")
	case c.Pattern == DefaultClass:
		return fmt.Errorf("class %q has the name of what no class matches", c.Pattern)
	case err != nil:
		return fmt.Errorf("class %q: %w", c.Pattern, err)
	case c.Weight < 1 || c.Weight > maxWeight:
		return fmt.Errorf("class %q: weight %d is not between 1 and %d", c.Pattern, c.Weight, maxWeight)
	}
	return nil
}

func checkClasses(classes []Class) error {
	seen := map[string]bool{}
	var errs []error
	for _, c := range classes {
		errs = append(errs, c.check())
		if seen[c.Pattern] {
			errs = append(errs, fmt.Errorf("class %q is given twice", c.Pattern))
		}
		seen[c.Pattern] = true
	}
	return errors.Join(errs...)
}
