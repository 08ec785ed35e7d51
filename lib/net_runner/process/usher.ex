defmodule NetRunner.Process.Usher do
  @moduledoc false
  # Sees a feeder off when its command's server is gone, in whatever way, or has given the command up: a feeder that writes finds
  # out by itself, and one that does not is killed.
  #
  # Its life: it waits for one of these, which may be far; looks a few times whether the feeder goes, hears, or only waits; and ends
  # with the feeder. Somebody waits for the feeder then, so nothing may end the usher before that: it is linked to nobody, and a
  # GenServer. Race: upgraded while it waits.

  use GenServer

  alias NetRunner.Process.Feeder

  # In ms: how long a feeder may take to notice that its command is gone, and then for its cleanup.
  @notice 50
  @cleanup 5_000

  # On a busy machine it may not run at all in that time. With so many reductions it could have heard: some milliseconds of its own.
  # One that runs and comes to no more of them waits in a NIF, such as for a file.
  @enough 200_000

  # `phase`: before the server is gone or has given up; after it, with what the feeder may come to until it is killed; its cleanup.
  @enforce_keys [:feeder, :monitor, :server]
  defstruct @enforce_keys ++ [phase: :waiting]

  @type t :: %__MODULE__{
          feeder: pid(),
          monitor: reference(),
          server: reference(),
          phase:
            :waiting
            | {:noticing, before :: non_neg_integer(), enough :: pos_integer(),
               times :: pos_integer()}
            | :cleaning_up
        }

  @doc "Starts one for the calling process, a feeder."
  @spec start(server :: pid()) :: usher :: pid()
  def start(server) do
    {:ok, usher} = GenServer.start(__MODULE__, {self(), server})
    usher
  end

  @doc "Called by the server, which has given its command up, and may wait long for its end."
  @spec see_off(usher :: pid()) :: :ok
  def see_off(usher), do: GenServer.cast(usher, :see_off)

  @impl true
  def init({feeder, server}) do
    {:ok,
     %__MODULE__{
       feeder: feeder,
       monitor: Process.monitor(feeder),
       server: Process.monitor(server)
     }}
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, _, _}, %{monitor: monitor} = usher),
    do: {:stop, :normal, usher}

  def handle_info({:DOWN, server, :process, _, _}, %{server: server, phase: :waiting} = usher),
    do: begin_to_look(usher)

  def handle_info(:look, %{phase: {:noticing, before, enough, times}, feeder: feeder} = usher) do
    now = reductions(feeder)

    cond do
      # Race: killed before it hears.
      Feeder.writes?(feeder) ->
        look_again(%{usher | phase: :cleaning_up}, @cleanup)

      times > 1 and now < enough and wants_to_run?(feeder, before, now) ->
        look_again(%{usher | phase: {:noticing, now, enough, times - 1}}, @notice)

      true ->
        kill(usher)
    end
  end

  def handle_info(:look, %{phase: :cleaning_up} = usher), do: kill(usher)

  # Of whoever has got hold of this pid.
  def handle_info(_message, usher), do: {:noreply, usher}
  @impl true
  def handle_call(_request, _from, usher), do: {:reply, {:error, :closed}, usher}
  @impl true
  def handle_cast(:see_off, %{phase: :waiting} = usher), do: begin_to_look(usher)
  def handle_cast(_request, usher), do: {:noreply, usher}

  defp begin_to_look(usher) do
    before = reductions(usher.feeder)
    phase = {:noticing, before, before + @enough, div(@cleanup, @notice)}
    look_again(%{usher | phase: phase}, @notice)
  end

  defp look_again(usher, ms) do
    Process.send_after(self(), :look, ms)
    {:noreply, usher}
  end

  defp kill(usher) do
    Process.exit(usher.feeder, :kill)
    {:stop, :normal, usher}
  end

  defp wants_to_run?(feeder, before, now) do
    status = status(feeder)
    status != :waiting and not (status == :running and now == before)
  end

  defp status(feeder) do
    with {:status, status} <- Process.info(feeder, :status), do: status
  end

  defp reductions(feeder) do
    with {:reductions, reductions} <- Process.info(feeder, :reductions),
         do: reductions,
         else: (nil -> 0)
  end
end
