package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/output/delivery"
)

var _ delivery.Checker = (*Destination)(nil)

// Check is that of [delivery.Checker]: it asks for the privileges that sending needs,
// which OpenSearch cannot tell, and for the templates, which the credentials of a
// sensor may not let it see.
func (d *Destination) Check(ctx context.Context, datasets output.Set) error {
	var names []string
	for set := range output.Datasets {
		if name := d.streams[set].name; datasets.Has(set) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	b, err := d.client.do(ctx, func() esapi.Request {
		return esapi.SecurityHasPrivilegesRequest{Body: bytes.NewReader(encode(object{
			"index": []object{{"names": names, "privileges": []string{"auto_configure", "create_doc"}}},
		}))}
	})
	var status *StatusError
	switch {
	case errors.As(err, &status) && status.Status != http.StatusUnauthorized && status.Status < 500:
		// Security is off, or is that of OpenSearch.
	case err != nil:
		return err
	default:
		var answer struct {
			Index map[string]map[string]bool `json:"index"`
		}
		if err := json.Unmarshal(b, &answer); err != nil {
			return fmt.Errorf("ask for our rights: %w", err)
		}
		var lacking []string
		for _, name := range names {
			for _, p := range []string{"auto_configure", "create_doc"} {
				if has, known := answer.Index[name][p]; known && !has {
					lacking = append(lacking, p+" on "+name)
				}
			}
		}
		if len(lacking) > 0 {
			return fmt.Errorf("the credentials lack the privileges %s", strings.Join(lacking, ", "))
		}
	}
	if missing := d.missingTemplates(ctx); len(missing) > 0 {
		return fmt.Errorf("the server lacks the index templates %s: run oddcert es setup", strings.Join(missing, ", "))
	}
	return nil
}
