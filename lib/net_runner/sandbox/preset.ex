defmodule NetRunner.Sandbox.Preset do
  @moduledoc false
  # Lists of paths with a name.

  @of_etc ~w(debian_version fonts gai.conf group host.conf hosts ImageMagick-6 ImageMagick-7 ld.so.cache ld.so.conf
             ld.so.conf.d localtime mime.types nsswitch.conf passwd pki/ca-trust/extracted pki/tls/cert.pem
             pki/tls/certs protocols resolv.conf services ssl/cert.pem ssl/certs ssl/openssl.cnf timezone)

  # What programs need to run: programs, libraries, interpreters and their data. `/etc` itself is not in it: root in a
  # sandbox owns `/etc/shadow`, and private keys lie in `/etc/ssl`.
  @system ~w(/usr /bin /sbin /lib /lib32 /lib64 /nix/store /gnu/store) ++
            Enum.map(@of_etc, &("/etc/" <> &1))

  @spec paths(:system) :: [Path.t()]
  def paths(:system), do: @system
end
