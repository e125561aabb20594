# The resource policy of the Key Broker Service (Trustee): which guest gets which key.
#
# `render.py fill` appends `releases`: for each key, the guest that may have it, by the MRCONFIGID of
# its initdata, and so by the agent policy, image, command and broker of that pod. That the guest is
# a genuine TDX guest with the right firmware and kernel is the attestation service's judgement
# (`affirming`, by its reference values: RVPS).
# Input: https://github.com/confidential-containers/trustee, kbs/sample_policies/, and
# deps/verifier/src/tdx/claims.rs for the claims of a TDX guest.
package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	some release in releases
	data["resource-path"] == release.path
	guest := claims.submods.cpu0
	guest["ear.status"] == "affirming"
	evidence := guest["ear.veraison.annotated-evidence"]
	evidence.tdx.quote.body.mr_config_id == release.mr_config_id
	evidence.tdx.td_attributes.debug == false
}

# Trustee 0.21 hands over the claims of the token; later ones a context with those claims inside.
claims := input if not input.trust_context

claims := input.trust_context.attestation_summary.claims if input.trust_context.attestation_summary.verification_result
