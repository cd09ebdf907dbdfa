package rules

import (
	"regexp"
	"strings"
)

// tactics are those of MITRE ATT&CK for Enterprise, by the name in a tag.
var tactics = map[string]ThreatEntry{
	"reconnaissance":       {ID: "TA0043", Name: "Reconnaissance"},
	"resource-development": {ID: "TA0042", Name: "Resource Development"},
	"initial-access":       {ID: "TA0001", Name: "Initial Access"},
	"execution":            {ID: "TA0002", Name: "Execution"},
	"persistence":          {ID: "TA0003", Name: "Persistence"},
	"privilege-escalation": {ID: "TA0004", Name: "Privilege Escalation"},
	"defense-evasion":      {ID: "TA0005", Name: "Defense Evasion"},
	"credential-access":    {ID: "TA0006", Name: "Credential Access"},
	"discovery":            {ID: "TA0007", Name: "Discovery"},
	"lateral-movement":     {ID: "TA0008", Name: "Lateral Movement"},
	"collection":           {ID: "TA0009", Name: "Collection"},
	"exfiltration":         {ID: "TA0010", Name: "Exfiltration"},
	"command-and-control":  {ID: "TA0011", Name: "Command and Control"},
	"impact":               {ID: "TA0040", Name: "Impact"},
}

var (
	techniqueTag = regexp.MustCompile(`^t([0-9]{4})(\.[0-9]{3})?$`)
	otherTag     = regexp.MustCompile(`^(g|s|c|m|ds)[0-9]{4}$`) // groups, software, campaigns, mitigations, data sources
)

// attackTag adds the entry of a tag, without its "attack.", to t. It reports
// whether there is such an entry.
func (t *Threat) attackTag(name string) bool {
	const framework, site = "MITRE ATT&CK", "https://attack.mitre.org/"
	name = strings.ToLower(name)
	if e, ok := tactics[strings.ReplaceAll(name, "_", "-")]; ok {
		e.Reference = site + "tactics/" + e.ID + "/"
		t.Framework, t.Tactics = framework, append(t.Tactics, e)
		return true
	}
	if m := techniqueTag.FindStringSubmatch(name); m != nil {
		technique := "T" + m[1]
		if m[2] == "" {
			t.Techniques = append(t.Techniques, ThreatEntry{ID: technique, Reference: site + "techniques/" + technique + "/"})
		} else {
			t.Subtechniques = append(t.Subtechniques, ThreatEntry{
				ID: technique + m[2], Reference: site + "techniques/" + technique + "/" + m[2][1:] + "/"})
		}
		t.Framework = framework
		return true
	}
	return otherTag.MatchString(name)
}
