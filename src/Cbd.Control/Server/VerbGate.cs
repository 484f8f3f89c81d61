using Cbd.Memory;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;

namespace Cbd.Control.Server;

/// <summary>
/// Does verbs. Those that change something may take long, and each has a thread of its own meanwhile: so many are done at once, and
/// more wait, without a thread. Stops do not wait for starts, which they may cancel, and what only lists waits for neither. Thread-safe.
/// </summary>
internal sealed class VerbGate(ControlConnections clients)
{
    /// <summary>Starts at once; they may wait for a lock or another host.</summary>
    public const int StartsAtOnce = 16;

    /// <summary>Other verbs at once that change something.</summary>
    public const int OthersAtOnce = 8;

    private readonly SemaphoreSlim _starts = new(StartsAtOnce);
    private readonly SemaphoreSlim _others = new(OthersAtOnce);

    /// <summary>For verbs where no thread can be had: a stop must be possible then, and one of the pool's threads is enough.</summary>
    private readonly SemaphoreSlim _withoutThread = new(1);

    /// <summary>The answer of the operation. Its client stays meanwhile.</summary>
    public async Task<object> Do(HttpContext context, Operation operation, ControlRequest request, CheckedControl control)
    {
        ControlConnection client = (ControlConnection?)context.Features.Get<IConnectionItemsFeature>()?.Items[typeof(ControlConnection)]
            ?? throw new InvalidOperationException("a control connection has no client");
        SemaphoreSlim? places = operation.IsLook ? null : request is IStartRequest ? _starts : _others;
        if (places is not null)
            await places.WaitAsync(context.RequestAborted);
        try
        {
            clients.BeginVerb(client);
            return places is null ? operation.Execute(control, request) : await DoOnThread(() => operation.Execute(control, request));
        }
        finally
        {
            clients.EndVerb(client);
            places?.Release();
        }
    }

    private async Task<object> DoOnThread(Func<object> verb)
    {
        var done = new TaskCompletionSource<object>(TaskCreationOptions.RunContinuationsAsynchronously);
        if (NeededThread.TryBegin(new Thread(Run) { IsBackground = true, Name = "cbd-verb" }))
            return await done.Task;
        await _withoutThread.WaitAsync();
        try
        {
            return verb();
        }
        finally
        {
            _withoutThread.Release();
        }

        void Run()
        {
            try
            {
                done.SetResult(verb());
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        }
    }
}
