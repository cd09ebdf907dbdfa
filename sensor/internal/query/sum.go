package query

import (
	"crypto/md5"
	"crypto/sha1"
	"fmt"

	"github.com/oddcert/oddcert/sensor/internal/inventory"
)

// findBySum returns the certificate with a SHA-1 or an MD5, which are not kept: they are
// those of what is read. The search ends at the first.
func findBySum(store *inventory.Store, digits string) ([]*inventory.Certificate, error) {
	for c, err := range store.Certificates() {
		if err != nil {
			return nil, err
		}
		der, err := store.DER(c.SHA256)
		if err != nil {
			return nil, err
		}
		sum := ""
		if len(digits) == 2*md5.Size {
			sum = fmt.Sprintf("%X", md5.Sum(der))
		} else {
			sum = fmt.Sprintf("%X", sha1.Sum(der))
		}
		if sum == digits {
			return []*inventory.Certificate{c}, nil
		}
	}
	return nil, nil
}
