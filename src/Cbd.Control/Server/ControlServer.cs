using System.Net.Sockets;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Cbd.Control.Server;

/// <summary>
/// The control API on a Unix socket. Built from nothing: no configuration is read from files, the environment or the
/// working directory. Start and stop are not thread-safe; requests are handled concurrently.
/// </summary>
internal sealed class ControlServer : IAsyncDisposable
{
    public const string ProblemContentType = "application/problem+json";

    /// <summary>Largest body of a request, bytes; the largest sensible one is a path and a few numbers.</summary>
    public const int MaxBodyBytes = 64 << 10;

    /// <summary>Clients that wait to be accepted.</summary>
    private const int Backlog = 512;

    private readonly WebApplication _application;
    private readonly string? _ownPath;
    private readonly FileStatus _ownFile;

    private ControlServer(WebApplication application, string? ownPath)
    {
        _application = application;
        if (ownPath is not null && FileStatus.TryGet(ownPath, out _ownFile, followLinks: false) == 0)
            _ownPath = ownPath;
    }

    /// <summary>
    /// Binds <paramref name="socketPath"/>, which must not exist, and answers on it. The socket's mode is 0600, with a
    /// group 0660 and that group. With a <paramref name="given"/> socket, which is bound there already, that one is
    /// answered on; it stays the caller's, and its file and mode are whoever's who made it.
    /// </summary>
    public static async Task<ControlServer> StartAsync(
        CheckedControl control, string socketPath, PeerAccess access, ILoggerProvider logs, StreamSocket? given = null)
    {
        var application = Build(control, socketPath, access, logs, given);
        try
        {
            await application.StartAsync();
            return new ControlServer(application, given is null ? socketPath : null);
        }
        catch (Exception e) when (e is IOException or SocketException or CbdException)
        {
            await application.DisposeAsync();
            throw e as CbdException
                ?? new CbdException(CbdErrorKind.Failed, $"cannot listen on the control socket '{socketPath}': {e.Message}", e);
        }
    }

    /// <summary>Ends what is under way (for a few seconds at most), and removes the socket if it made it.</summary>
    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        await _application.StopAsync(patience.Token);
        await _application.DisposeAsync();
        // Somebody may have put something else there meanwhile; that stays.
        if (_ownPath is not null && FileStatus.TryGet(_ownPath, out var now, followLinks: false) == 0 && now.IsSameFile(_ownFile))
            File.Delete(_ownPath);
    }

    private static WebApplication Build(CheckedControl control, string socketPath, PeerAccess access, ILoggerProvider logs, StreamSocket? given)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions
        {
            ApplicationName = "cbdd",
            EnvironmentName = Environments.Production,
            ContentRootPath = "/",
        });
        builder.Logging.AddProvider(logs).SetMinimumLevel(LogLevel.Warning);
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        builder.Services.AddRoutingCore();
        builder.WebHost.UseKestrelCore();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBodyBytes;
            kestrel.ListenUnixSocket(socketPath, listen => listen.Use(next => connection =>
            {
                connection.Items[typeof(PeerAccess)] = Refusal(connection, access);
                return next(connection);
            }));
        });
        builder.WebHost.UseSockets(sockets => sockets.CreateBoundListenSocket = endpoint => given?.DuplicateAsSocket() ?? Bind(endpoint, access));

        var application = builder.Build();
        application.Use(next => context => AnswerProblems(context, next));
        application.UseRouting();
        foreach (var operation in Operations.All)
            application.MapMethods(operation.Path, [operation.Method], new OperationEndpoint(operation, control).Serve);
        var document = new Lazy<byte[]>(OpenApiDocument.Write);
        application.MapMethods(OpenApiDocument.Path, ["GET"], context =>
        {
            context.Response.ContentType = "application/json;charset=utf-8";
            return context.Response.Body.WriteAsync(document.Value, context.RequestAborted).AsTask();
        });
        return application;
    }

    private static Socket Bind(System.Net.EndPoint endpoint, PeerAccess access)
    {
        var path = endpoint.ToString()!;
        // .NET's own socket would remove, at its end, whatever has its name then.
        var address = endpoint.Serialize();
        using var socket = StreamSocket.TryListen(address.Buffer.Span[..address.Size], Backlog, out var error)
            ?? throw new SystemCallException("bind", error, path);
        try
        {
            if (access.Group is { } group)
            {
                ControlSyscalls.ChangeGroup(path, group.Id);
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite
                    | UnixFileMode.GroupRead | UnixFileMode.GroupWrite);
            }

            return socket.DuplicateAsSocket();
        }
        catch
        {
            _ = StreamSocket.Unlink(path);
            throw;
        }
    }

    private static string? Refusal(ConnectionContext connection, PeerAccess access)
    {
        try
        {
            var socket = connection.Features.Get<IConnectionSocketFeature>()?.Socket
                ?? throw new InvalidOperationException("a control connection has no socket");
            return access.Refusal(Peer.Of(socket));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            return $"control client without the right: the kernel does not say who it is ({e.Message})";
        }
    }

    private static async Task AnswerProblems(HttpContext context, RequestDelegate next)
    {
        ControlProblem problem;
        try
        {
            var items = context.Features.Get<IConnectionItemsFeature>()?.Items
                ?? throw new InvalidOperationException("a control connection has no items");
            if (items[typeof(PeerAccess)] is string refusal)
                throw new CbdException(CbdErrorKind.Denied, refusal);
            await next(context);
            if (context.Response.StatusCode < 400 || context.Response.HasStarted)
                return;
            problem = OfStatus(context.Request, context.Response.StatusCode);
        }
        catch (CbdException e)
        {
            problem = ControlProblem.From(e.Kind, e.Message);
        }
        catch (BadHttpRequestException e)
        {
            problem = e.StatusCode == StatusCodes.Status400BadRequest
                ? ControlProblem.From(CbdErrorKind.Invalid, $"the request is not right: {e.Message}")
                : OfStatus(context.Request, e.StatusCode);
        }
        catch (OutOfMemoryException e)
        {
            // Also what the runtime throws when no thread can be had.
            context.RequestServices.GetRequiredService<ILoggerFactory>().CreateLogger("control")
                .LogError("{Method} {Path}: no thread, or no memory: {Reason}", context.Request.Method, context.Request.Path, e.Message);
            problem = ControlProblem.From(CbdErrorKind.Exhausted,
                "cbdd cannot have another thread or more memory: raise its limits (TasksMax= and MemoryMax= of its unit, ulimit -u and -v), then try again");
        }
        catch (Exception e) when (!context.RequestAborted.IsCancellationRequested)
        {
            // A bug of ours in one request must not take the disks of others down, and must be seen.
            context.RequestServices.GetRequiredService<ILoggerFactory>().CreateLogger("control")
                .LogError(e, "{Method} {Path} failed inside", context.Request.Method, context.Request.Path);
            problem = ControlProblem.From(CbdErrorKind.Failed,
                $"this is a bug in cbdd, please report it: {e.GetType().Name}: {e.Message}");
        }

        if (context.Response.HasStarted)
            return;
        context.Response.StatusCode = problem.Status;
        await context.Response.WriteAsJsonAsync(problem, ControlJson.Plain.Of<ControlProblem>(), ProblemContentType);
    }

    /// <summary>What is refused without words.</summary>
    private static ControlProblem OfStatus(HttpRequest request, int status)
    {
        var what = $"{request.Method} {request.Path}{request.QueryString}";
        return status switch
        {
            404 => ControlProblem.From(CbdErrorKind.NotFound, $"there is no {what}; {OpenApiDocument.Path} describes what there is"),
            405 => ControlProblem.From(CbdErrorKind.Invalid, $"{what} is not a method of it; {OpenApiDocument.Path} describes them"),
            413 => ControlProblem.From(CbdErrorKind.Invalid, $"the body of {what} is longer than {MaxBodyBytes} bytes"),
            415 => ControlProblem.From(CbdErrorKind.Invalid, $"the body of {what} is not application/json; send it with that content type"),
            _ => ControlProblem.From(CbdErrorKind.Invalid, $"{what} has an argument that is not right; {OpenApiDocument.Path} describes them"),
        } with
        {
            Status = status,
        };
    }

    /// <summary>Signals are the program's business, not the web host's.</summary>
    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
