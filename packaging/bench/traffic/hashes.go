package traffic

import (
	"bytes"
	"encoding/json"
)

// Hashes are the SHA-256 of the certificates in a chain, in upper-case hex, as
// records have them: one array of hashes, or an array of certificates of which each
// has its own. Truncated certificates have none, and are left out.
type Hashes []string

// UnmarshalJSON reads either form.
func (h *Hashes) UnmarshalJSON(b []byte) error {
	*h = nil
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte{'['}) {
		var list []struct {
			Hash struct {
				SHA256 string `json:"sha256"`
			} `json:"hash"`
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		for _, c := range list {
			if c.Hash.SHA256 != "" {
				*h = append(*h, c.Hash.SHA256)
			}
		}
		return nil
	}
	var chain struct {
		Hash struct {
			SHA256 []string `json:"sha256"`
		} `json:"hash"`
	}
	err := json.Unmarshal(b, &chain)
	*h = chain.Hash.SHA256
	return err
}
