package service

import "fmt"

// Secret returns the password of basic authentication, from where the configuration has it.
func (c RegistryConfig) Secret() (string, error) {
	if c.PasswordFile == "" {
		return c.Password.Reveal(), nil
	}
	secret, err := readSecretFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("registry.password_file: %w", err)
	}
	return secret, nil
}
