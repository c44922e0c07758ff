// Starts `invar lsp` and keeps it running: everything this extension knows of the language, the server tells it.

import { commands, ExtensionContext, window, workspace } from "vscode";
import { LanguageClient, LanguageClientOptions, ServerOptions } from "vscode-languageclient/node";

let client: LanguageClient | undefined;

export async function activate(context: ExtensionContext): Promise<void> {
  context.subscriptions.push(
    commands.registerCommand("invar.restart", restart),
    workspace.onDidChangeConfiguration(async (change) => {
      if (change.affectsConfiguration("invar.path") || change.affectsConfiguration("invar.singleFiles")) {
        await restart();
      }
    }),
  );
  await start();
}

export async function deactivate(): Promise<void> {
  await stop();
}

async function restart(): Promise<void> {
  await stop();
  await start();
}

async function stop(): Promise<void> {
  const stopped = client;
  client = undefined;
  await stopped?.dispose();
}

async function start(): Promise<void> {
  const settings = workspace.getConfiguration("invar");
  const command = settings.get<string>("path", "invar");
  const server: ServerOptions = { command, args: ["lsp"] };
  const options: LanguageClientOptions = {
    documentSelector: [
      { scheme: "file", language: "alloy" },
      { scheme: "untitled", language: "alloy" },
    ],
    initializationOptions: { singleFiles: settings.get<boolean>("singleFiles", false) },
  };
  client = new LanguageClient("invar", "Invar", server, options);
  try {
    await client.start();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const choice = await window.showErrorMessage(
      `Invar's language server cannot be started with "${command} lsp": ${reason}`,
      "Open settings",
    );
    if (choice !== undefined) {
      await commands.executeCommand("workbench.action.openSettings", "invar.path");
    }
  }
}
