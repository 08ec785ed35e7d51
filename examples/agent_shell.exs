# The `bash` tool of a coding agent: runs what a language model has written, in a sandbox.
#
#     mix run examples/agent_shell.exs
#
# A command may read and change the work folder and read the system's programs. It has no network, 16 GiB of addresses for each
# process and 30 seconds, and sees no other process. The model gets the beginning and the end of the output, and an end in words.
#
# The script builds a small C project in such a shell, uses git and python3, and then tries to get out three times.

defmodule AgentShell do
  @head 4_000
  @tail 4_000

  # What is below somebody's home, such as the shims of version managers, cannot be read in the sandbox.
  @path "/usr/local/bin:/usr/bin:/bin"

  @doc "Runs a script in the work folder, and gives the text that the model is to see."
  def run(script, work) do
    options = [
      sandbox: [read: [:system], write: [work], network: false, processes: :own, tmp: :private],
      cd: work,
      # Nothing of the application's environment: no keys, no passwords.
      clear_env: true,
      # Tools put their caches into HOME. With `"HOME" => "/tmp"` they would not lie in the work folder, and not last.
      # git would fail over an /etc/gitconfig that it may not read.
      env: %{
        "PATH" => @path,
        "HOME" => work,
        "LANG" => "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM" => "1"
      },
      # `:as` counts what is reserved and never used, too: node reserves 10 GiB for one WebAssembly memory. Where there are
      # cgroups, `cgroup: [memory_max: bytes, pids_max: number]` limits what is used.
      rlimits: [as: 16 * 1024 * 1024 * 1024, fsize: 100_000_000, core: 0],
      timeout: 30_000,
      kill_timeout: 1_000,
      stderr: :redirect,
      keep: {@head, @tail}
    ]

    case NetRunner.capture(["bash", "-c", script], options) do
      {:ok, result} -> output(result) <> ending(result)
      # The sandbox could not be made: the command was not started.
      {:error, {:sandbox, sentence}} -> "[not started: #{sentence}]"
      {:error, reason} -> "[not started: #{inspect(reason)}]"
    end
  end

  defp output(%{stdout: output, dropped: %{stdout: dropped}}) when dropped > 0 do
    <<head::binary-size(@head), tail::binary>> = output
    "#{text(head)}\n[… #{dropped} bytes left out …]\n#{text(tail)}"
  end

  defp output(%{stdout: output}), do: text(output)

  # Output is bytes, and what is left out may begin and end inside of a character.
  defp text(bytes) do
    for piece <- String.chunk(bytes, :valid), into: "" do
      if String.valid?(piece), do: piece, else: "\uFFFD"
    end
  end

  defp ending(%{outcome: :timeout}), do: "[stopped after 30 seconds]"
  defp ending(%{exit: {:exited, code}}), do: "[exit status #{code}]"
  defp ending(%{exit: {:signaled, name, _}}), do: "[ended by #{name}]"
  defp ending(%{outcome: outcome}), do: "[#{inspect(outcome)}]"
end

work = Path.join(System.tmp_dir!(), "agent_shell_#{System.pid()}")
File.mkdir_p!(work)

# What the agent must not get: a key in the home of the application's user.
secret = Path.join(System.tmp_dir!(), "agent_shell_key_#{System.pid()}")
File.write!(secret, "the key of the application\n")

scripts = [
  {"Builds a C project, and runs it",
   """
   mkdir -p src
   cat > src/sum.c <<'END'
   int sum(int a, int b) { return a + b; }
   END
   cat > src/main.c <<'END'
   #include <stdio.h>
   int sum(int a, int b);
   int main(void) { printf("sum: %d\\n", sum(40, 2)); }
   END
   gcc -O2 -Wall -o sum src/*.c && ./sum
   """},
  {"Keeps it in git",
   """
   git init -q . && git config user.email agent@example.org && git config user.name Agent
   git add src && git commit -q -m "A program that adds" && git log --format='commit: %s'
   """},
  {"Looks at it with python3",
   """
   python3 - <<'END'
   import pathlib
   lines = sum(len(p.read_text().splitlines()) for p in pathlib.Path("src").glob("*.c"))
   print("lines of C:", lines)
   END
   """},
  {"Prints far too much", "seq 1 1000000"},
  {"Reads the key", "cat #{secret}"},
  {"Sends the project away", "python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80))\""},
  {"Kills the application", "kill -9 #{System.pid()}"}
]

try do
  for {title, script} <- scripts do
    IO.puts("== #{title}\n#{AgentShell.run(script, work)}\n")
  end
after
  File.rm_rf!(work)
  File.rm(secret)
end
