// psp-oracle answers what PodSecurityPolicy of Kubernetes 1.24 did to a pod, by running its own code.
//
// Standard input is JSON lines, each a request; standard output is one answer for each, in order. A line that
// is no request is answered with what is wrong with it, and harms no other.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	core "k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/policy"
	pspconversion "k8s.io/kubernetes/pkg/apis/policy/v1beta1"
	pspvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/security/podsecuritypolicy"
	kjson "sigs.k8s.io/json"
)

// request asks what one policy does to one pod.
type request struct {
	PSP json.RawMessage `json:"psp"`
	Pod json.RawMessage `json:"pod"`
	// Model is the pod as someone else would mutate it. It is only read and written again, by the same types,
	// so that it can be compared with the pods of the answer.
	Model json.RawMessage `json:"model"`
}

// answer says what PodSecurityPolicy did. Pods are written by the API's own types.
type answer struct {
	// Bad is what is wrong with the line. Then there is nothing else.
	Bad string `json:"bad,omitempty"`
	// Refused is why the API server would not have stored the policy.
	Refused []fault `json:"refused,omitempty"`
	// Unusable is why admission skipped the policy although it was stored. Then there is nothing below.
	Unusable string `json:"unusable,omitempty"`
	// Mutated is the pod after MutatePod.
	Mutated *corev1.Pod `json:"mutated,omitempty"`
	// Errors is what ValidatePod said of it.
	Errors []fault `json:"errors,omitempty"`
	// Stored is the mutated pod as the pod registry prepared it for storage: seccomp annotations and fields in
	// step with each other.
	Stored *corev1.Pod `json:"stored,omitempty"`
	// Invalid is why the API server's own validation would have refused the stored pod whatever policy said.
	Invalid []fault     `json:"invalid,omitempty"`
	Model   *corev1.Pod `json:"model,omitempty"`
}

// fault is an error without its text.
type fault struct {
	Type  string `json:"type"`
	Field string `json:"field"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "psp-oracle:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	reader := bufio.NewReaderSize(in, 1<<20)
	writer := bufio.NewWriterSize(out, 1<<20)
	encoder := json.NewEncoder(writer)
	encoder.SetEscapeHTML(false)
	for {
		line, err := reader.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			if err := encoder.Encode(respond(line)); err != nil {
				return fmt.Errorf("write an answer: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return writer.Flush()
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		// Whoever waits for this answer before asking again must get it.
		if reader.Buffered() == 0 {
			if err := writer.Flush(); err != nil {
				return fmt.Errorf("write an answer: %w", err)
			}
		}
	}
}

// respond never fails: neither bad input nor a panic in Kubernetes' code ends the process.
func respond(line []byte) (result answer) {
	defer func() {
		if cause := recover(); cause != nil {
			result = answer{Bad: fmt.Sprintf("panic: %v", cause)}
		}
	}()
	result, err := judge(line)
	if err != nil {
		return answer{Bad: err.Error()}
	}
	return result
}

func judge(line []byte) (answer, error) {
	var asked request
	if err := decode("request", line, &asked); err != nil {
		return answer{}, err
	}
	psp := &policyv1beta1.PodSecurityPolicy{}
	if err := decode("psp", asked.PSP, psp); err != nil {
		return answer{}, err
	}
	pspconversion.SetDefaults_PodSecurityPolicySpec(&psp.Spec)
	subject, err := decodePod("pod", asked.Pod)
	if err != nil {
		return answer{}, err
	}

	result := answer{}
	if len(asked.Model) > 0 {
		model, err := decodePod("model", asked.Model)
		if err != nil {
			return answer{}, err
		}
		if result.Model, err = encodePod(model); err != nil {
			return answer{}, err
		}
	}
	internal := &policy.PodSecurityPolicy{}
	if err := pspconversion.Convert_v1beta1_PodSecurityPolicy_To_policy_PodSecurityPolicy(psp, internal, nil); err != nil {
		return answer{}, fmt.Errorf("psp: %w", err)
	}
	result.Refused = faults(pspvalidation.ValidatePodSecurityPolicy(internal))

	provider, err := podsecuritypolicy.NewSimpleProvider(psp, subject.Namespace, podsecuritypolicy.NewSimpleStrategyFactory())
	if err != nil {
		result.Unusable = err.Error()
		return result, nil
	}
	if err := provider.MutatePod(subject); err != nil {
		return answer{}, fmt.Errorf("mutate: %w", err)
	}
	if result.Mutated, err = encodePod(subject); err != nil {
		return answer{}, err
	}
	result.Errors = faults(provider.ValidatePod(subject))
	return result, store(&result)
}

// store prepares the mutated pod for storage, as the API server did between mutating and validating admission.
func store(result *answer) error {
	defaulted := result.Mutated.DeepCopy()
	corev1conversion.SetObjectDefaults_Pod(defaulted)
	created := &core.Pod{}
	if err := corev1conversion.Convert_v1_Pod_To_core_Pod(defaulted, created, nil); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	pod.Strategy.PrepareForCreate(context.Background(), created)
	result.Invalid = faults(pod.Strategy.Validate(context.Background(), created))
	stored, err := encodePod(created)
	result.Stored = stored
	return err
}

func decodePod(what string, data []byte) (*core.Pod, error) {
	versioned := &corev1.Pod{}
	if err := decode(what, data, versioned); err != nil {
		return nil, err
	}
	internal := &core.Pod{}
	if err := corev1conversion.Convert_v1_Pod_To_core_Pod(versioned, internal, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return internal, nil
}

func encodePod(internal *core.Pod) (*corev1.Pod, error) {
	versioned := &corev1.Pod{}
	if err := corev1conversion.Convert_core_Pod_To_v1_Pod(internal, versioned, nil); err != nil {
		return nil, fmt.Errorf("encode pod: %w", err)
	}
	return versioned, nil
}

// decode reads JSON as the API server does, and refuses what the types do not know.
func decode(what string, data []byte, into any) error {
	if len(data) == 0 {
		return fmt.Errorf("%s: missing", what)
	}
	strict, err := kjson.UnmarshalStrict(data, into)
	if err == nil {
		err = errors.Join(strict...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func faults(list field.ErrorList) []fault {
	result := make([]fault, 0, len(list))
	for _, err := range list {
		result = append(result, fault{Type: string(err.Type), Field: err.Field})
	}
	return result
}
