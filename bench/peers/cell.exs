# One figure: one kind of work by one runner, in a VM of its own. `elixir -pa EBIN -pa PEERS cell.exs RUNNER WORK SECONDS`
# prints `figure: NUMBER`, or `unable: REASON`; anything else means that the work failed.
Logger.configure(level: :error)

[name, work, seconds] = System.argv()

{runner, application} =
  case name do
    "net_runner" -> {Peers.NetRunner, :net_runner}
    "port" -> {Peers.Port, :logger}
    "exile" -> {Peers.Exile, :exile}
    "c_net_runner" -> {Peers.CNetRunner, :net_runner}
    "muontrap" -> {Peers.MuonTrap, :muontrap}
    "erlexec" -> {Peers.Erlexec, :erlexec}
    "ex_cmd" -> {Peers.ExCmd, :ex_cmd}
  end

if application == :erlexec do
  # It refuses to run commands as root unless it is told the user.
  for {key, value} <- [root: true, user: ~c"root", limit_users: [~c"root"]],
      do: Application.put_env(:erlexec, key, value)
end

{:ok, _} = Application.ensure_all_started(application)
{:module, _} = Code.ensure_loaded(runner)

try do
  apply(Peers.Work, String.to_atom(work), [runner, String.to_float(seconds)])
catch
  :throw, reason -> IO.puts("unable: #{reason}")
else
  figure -> IO.puts("figure: #{figure}")
end

# Without the time that applications take to stop.
System.halt(0)
